"""What a search is given: its options, what text is read as, and which of them change nothing beside others."""

from amc_latency.search.config.options import SearchConfig as SearchConfig
from amc_latency.search.config.options import listed as listed
from amc_latency.search.config.reading import config_of as config_of
from amc_latency.search.config.run_name import run_name as run_name
