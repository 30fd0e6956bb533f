"""Where shards lie: local folders, web servers and object stores behind one seam.

Addresses are local paths, ``http(s)://``, ``s3://`` (any endpoint), ``gs://``, ``az://``, ``hf://`` and, when
switched on, ``pipe:``. Credentials come from the environment alone, as each vendor's tools read them:

- S3: ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, a profile, or the machine's role; ``AWS_ENDPOINT_URL`` for
  servers other than Amazon's. Without any, buckets are read anonymously.
- HTTP: ``SFDKIT_HTTP_AUTHORIZATION``, the value of the ``Authorization`` header.
- Google: ``GOOGLE_APPLICATION_CREDENTIALS``; Azure: ``AZURE_STORAGE_*``; Hugging Face: ``HF_TOKEN``.
"""

from sfdkit.storage.files import Storage, storages
from sfdkit.storage.settings import StorageSettings

__all__ = ["Storage", "StorageSettings", "storages"]
