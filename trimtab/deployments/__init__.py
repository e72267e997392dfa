"""MLflow's deployments API on trimtab: `mlflow.deployments.get_deploy_client("trimtab")`.

The target names the home of the platform: `trimtab` is the default one (TRIMTAB_HOME, else ~/.trimtab),
`trimtab:/path/to/home` another. MLflow finds this module by its entry point and wants three names in it.
"""

from trimtab.deployments.plugin import TrimtabDeployments, run_local, target_help

__all__ = ["TrimtabDeployments", "run_local", "target_help"]
