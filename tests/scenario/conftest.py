import pytest

SAMPLE = """\
seed = 7
warmup = "10%"

[host]
cpu = "skylake-x"
cores = 2
memory = "16GiB"
quantum = "1ms"

[host.pool]
min = 64
max = 1024
batch = 256

[[vm]]
name = "db"
count = 2
memory = "2GiB"
mode = "ept"
guest_page = "4K"
host_page = "2M"

[vm.pool]
min = 128

[vm.workload]
kind = "uniform"
footprint = "1GiB"
accesses = 1000

[[vm]]
name = "web"
memory = "1GiB"
mode = "native"
start = "2ms"

[vm.workload]
kind = "trace"
path = "web.vmtrace"
repeat = 4
"""


@pytest.fixture(scope="session")
def sample() -> str:
    """Return a scenario of two groups, three VMs."""
    return SAMPLE
