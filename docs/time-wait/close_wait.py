"""CLOSE_WAIT piles up where an application never calls close(). Nothing in TCP ends it."""

from fasttcp import profile
from fasttcp.load.loads import Load
from fasttcp.load.plan import make_plan

SECOND = 10**9
load = Load(rate=20, lifetime_ns=SECOND, answer_ns=None)  # the server's application forgets to close
plan = make_plan(load, profile("linux"), duration_ns=300 * SECOND)
print("seconds  server CLOSE_WAIT  client FIN_WAIT_2  client TIME_WAIT")
series = plan.series
for at in range(len(series["time_ns"])):
    if series["time_ns"][at] % (60 * SECOND) == 0:
        print(
            f"{series['time_ns'][at] // SECOND:7}  {series['server_close_wait'][at]:17,}  {series['client_fin_wait_2'][at]:17,}"
            f"  {series['client_time_wait'][at]:16,}"
        )
