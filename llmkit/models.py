"""The import path of the document of llmax: `from llmkit.models import Deployment, Model`."""

from llmkit.providers.deployments import Deployment as Deployment
from llmkit.providers.deployments import Model as Model
