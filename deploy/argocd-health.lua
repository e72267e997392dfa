-- The health of a ServingEndpoint, for Argo CD: in the ConfigMap argocd-cm as
-- `resource.customizations.health.serving.trimtab.dev_ServingEndpoint`. See docs/kubernetes.md.
local function condition(name)
  for _, each in ipairs((obj.status or {}).conditions or {}) do
    if each.type == name then return each end
  end
  return {status = "Unknown", message = ""}
end

local health = {status = "Progressing", message = "not looked at yet"}
if (obj.status or {}).observedGeneration ~= obj.metadata.generation then
  return health
end
local ready, progressing, degraded = condition("Ready"), condition("Progressing"), condition("Degraded")
health.message = ready.message
if progressing.status == "True" then
  health.status = "Progressing"
elseif degraded.status == "True" and (ready.status ~= "True" or degraded.reason ~= "Warning") then
  health.status, health.message = "Degraded", degraded.message
elseif ready.status == "True" then
  health.status = "Healthy"
end
return health
