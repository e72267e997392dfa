"""A loaded model with both ways to ask it: the fast one where it is sure, and MLflow's own."""

from __future__ import annotations

import contextlib

from trimtab.runtime.mlflow.answer import JSON, Answer
from trimtab.runtime.mlflow.fast.failure import Failure
from trimtab.runtime.mlflow.fast.path import FastPath, written
from trimtab.runtime.mlflow.fast.proof import proven, some_body
from trimtab.runtime.mlflow.independence import Verdict, judged
from trimtab.runtime.mlflow.job import Job, now_s
from trimtab.runtime.mlflow.scoring import Scorer, failure


class Quick:
    """Answers jobs as `Scorer` does, sooner."""

    def __init__(self, scorer: Scorer, fast: FastPath, failures: Failure | None) -> None:
        self.version = scorer.version
        self.timeout_s = scorer.timeout_s
        self.fast = fast
        self._scorer = scorer
        self._failures = failures

    @classmethod
    def of(cls, scorer: Scorer, example: bytes | None) -> Quick | None:
        """None if nothing of this model is sure. `example` is a body that the model can answer."""
        fast = FastPath.compiled(scorer.model)
        if fast is None or proven(fast, example) is None:
            return None
        try:
            failures = Failure(scorer.model, some_body(fast))
        except Exception:  # noqa: BLE001  then a request that fails is asked once more
            failures = None
        return cls(scorer, fast, failures)

    def carry_out(self, job: Job) -> None:
        """Answer a job in this thread."""
        began_s = now_s()
        if not job.slow and job.question is None:
            job.question = job.read(self.fast)
        job.batch_s = now_s() - began_s
        if job.slow or job.question is None or not self._ask(job):
            self._scorer.carry_out(job)

    def failed(self, error: BaseException) -> Answer | None:
        """MLflow's answer to what the model raised; None if only MLflow itself can tell."""
        found = self._failures.of(error) if self._failures is not None else None
        return None if found is None else failure(found, error).answer

    def judge(self, example: bytes | None) -> Verdict:
        """Whether to predict requests together; asks the model for variations of its example."""
        return judged(self.fast, self.fast.read(example, JSON) if example else None)

    def _ask(self, job: Job) -> bool:
        """Whether the fast path has the answer."""
        assert job.question is not None
        began_s = now_s()
        try:
            raw = self.fast.predict([job.question])
        except BaseException as error:  # noqa: BLE001  SystemExit in a thread would end the event loop
            job.answer = self.failed(error)
        else:
            with contextlib.suppress(Exception):  # then MLflow says what cannot be written
                job.answer = job.written(raw, written)
        job.predict_s = now_s() - began_s
        return job.answer is not None
