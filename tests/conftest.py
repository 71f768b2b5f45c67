"""Quiet libraries, one thread and an environment of our own: what tests of tiny models need."""

import os

from hypothesis import HealthCheck, settings

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LLAMAFACTORY_VERBOSITY": "WARN",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "NO_PROXY": "127.0.0.1",  # for the hubs that tests serve
}
for name in (
    "COLUMNS",
    "FORCE_COLOR",
    "TTY_COMPATIBLE",
    "LOSIA_TRACEBACK",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_CACHE",  # it and the next would go before the HF_HOME that tests set
    "HF_DATASETS_CACHE",
):
    os.environ.pop(name, None)

# Speed is no test's business: a machine may be busy with something else.
settings.register_profile("losia", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("losia")
