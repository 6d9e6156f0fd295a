"""The loads that kernel and plan are both given. All run at the same time, each in a network namespace of its own."""

from dataclasses import dataclass, field

from fasttcp.load.loads import Load
from fasttcp.load.plan import Plan, make_plan
from fasttcp.profiles import LINUX, Profile

SECONDS = 150
LIFETIME_S = 0.2
HERE = "198.18.0.1"  # on lo, but no loopback address: tcp_tw_reuse = 2 does not count it as one


@dataclass(frozen=True)
class Scenario:
    """One load. Ports: 40000 and as many as are named. answer_s: from a FIN to the other side's close."""

    name: str
    shows: str
    ports: int
    rate: float = 100
    sources: int = 1
    server_share: float = 0.0
    answer_s: float = 0.0
    loopback: bool = False
    sysctls: dict[str, int] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        if self.loopback:
            return ["127.0.0.1"]
        return [f"198.18.0.{1 + i}" for i in range(self.sources)]

    @property
    def range(self) -> tuple[int, int]:
        return 40000, 40000 + self.ports - 1

    @property
    def profile(self) -> Profile:
        changes: dict[str, object] = dict(self.sysctls)
        return LINUX.replace(**{"tcp_tw_reuse": 0, "ip_local_port_range": self.range, **changes})

    @property
    def load(self) -> Load:
        return Load(
            rate=self.rate, lifetime_ns=round(LIFETIME_S * 1e9), sources=self.sources, server_share=self.server_share,
            rtt_ns=200_000, answer_ns=round(self.answer_s * 1e9), loopback=self.loopback,
        )  # fmt: skip

    def closers(self) -> list[int]:
        """Who closes first, connection by connection, as the plan's script has it (0 client, 1 server); it repeats."""
        from fasttcp.load.loads import RECORD

        return [closer for _, _, _, closer in RECORD.iter_unpack(self.load.script[0])]

    def predict(self, hz: int, jiffies: int = 0) -> Plan:
        """The plan, with the grain of this kernel's timers, and where in it the load began (jiffies at that moment)."""
        waits = self.sysctls.get("tcp_fin_timeout", 60) if self.answer_s else 60
        grain = grain_ns(waits, hz)
        phase = jiffies * 10**9 // hz % grain
        return make_plan(self.load, self.profile, duration_ns=SECONDS * 10**9, tick_ns=grain, phase_ns=phase)


def grain_ns(seconds: float, hz: int) -> int:
    """How coarse the kernel's timer wheel is that far ahead: level n has 8^n jiffies, and begins at 63 of level n - 1
    (kernel/time/timer.c, LVL_GRAN and LVL_START)."""
    jiffies, level = seconds * hz, 0
    while jiffies >= 63 * 8**level:
        level += 1
    return 8**level * 10**9 // hz


SCENARIOS = (
    Scenario("exhausted", "every port in TIME_WAIT: 2,000 of them at 100/s", ports=2000),
    Scenario("two-sources", "the same from two addresses with 1,000 ports each", ports=1000, sources=2),
    Scenario("reuse-1", "tcp_tw_reuse = 1: connect takes ports in TIME_WAIT", ports=1000, sysctls={"tcp_tw_reuse": 1}),
    Scenario("reuse-2", "tcp_tw_reuse = 2, no loopback address: as 0", ports=1000, sysctls={"tcp_tw_reuse": 2}),
    Scenario(
        "reuse-2-loopback", "tcp_tw_reuse = 2 on 127.0.0.1: as 1", ports=1000, loopback=True, sysctls={"tcp_tw_reuse": 2}
    ),
    Scenario("buckets", "tcp_max_tw_buckets = 500: the rest does not wait", ports=2000, sysctls={"tcp_max_tw_buckets": 500}),
    Scenario("server-closes", "TIME_WAIT is the server's, and a new SYN reopens it", ports=1000, server_share=1.0),
    Scenario("mix", "each side closes half", ports=2000, server_share=0.5),
    Scenario(
        "fin-timeout", "tcp_fin_timeout = 5, the peer closes 20 s late: FIN_WAIT_2 and no TIME_WAIT", ports=2000,
        rate=50, answer_s=20, sysctls={"tcp_fin_timeout": 5},
    ),
)  # fmt: skip
