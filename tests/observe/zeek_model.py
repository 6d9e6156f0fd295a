"""Zeek's rules once more, slowly: a naive model of one 4-tuple, to check the compiled journal against.

Written from the rules (README of the log, section by section), with Python's own integers, sets of byte positions and a
list of timers; nothing here is shared with the code under test. Numbers stay below 2^31, so nothing wraps.
"""

INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)
SECOND = 1_000_000_000
FAR = 1 << 20
MUCH = 16384  # bytes of a side that nobody acknowledges
HANDSHAKE = (INACTIVE, SYN_SENT, SYN_ACK_SENT)


class Wrapped(Exception):
    """A FIN far behind: Zeek takes it for one 2^32 ahead, which this model does not follow."""


class Side:
    def __init__(self, name):
        self.name = name
        self.state = self.before = INACTIVE
        self.start = self.last = self.acked = 0
        self.reach = self.trim = 1
        self.held = set()  # positions seen and not forgotten
        self.letters = set()
        self.number_of = {}  # letter: number of the last one
        self.counts = {}
        self.fin = None
        self.closed = self.at_end = self.spoken = self.given_up = False
        self.packets = self.ip_bytes = 0

    def to(self, state, peer, row):
        if state != self.state:
            if state not in HANDSHAKE and self.state in HANDSHAKE and peer.state in HANDSHAKE:
                row.idle = 300 * SECOND
                row.idle_due = row.last_time + row.idle
            self.before, self.state = self.state, state

    def clean(self):
        return self.state == ESTABLISHED or (self.state == CLOSED and self.before == ESTABLISHED)

    def size(self, peer):
        if self.before == SYN_SENT and self.state == RESET and peer.state == INACTIVE and not self.unheard():
            return 0
        size = max(self.last, self.acked) - self.start
        size -= size != 0
        return size - (size != 0 and self.fin is not None)

    def unheard(self):
        return self.acked - self.start in (0, 1)

    def pending(self, peer):
        if self.given_up:
            return False
        ahead = self.last - (self.start + self.reach) % 2**64  # as unsigned numbers of 64 bits do
        if ahead < 0:
            return False
        return ahead > 1 or (self.state != RESET and bool(peer.held))


class Row:
    def __init__(self, sender, time, segment):
        self.orig, self.resp = Side(sender), Side("ba"[sender == "b"])
        self.first = self.last_time = time
        self.history = ""
        self.partial = False
        self.active = True
        self.deferred = self.told = False
        self.missed = 0
        self.idle = 60 * SECOND
        self.idle_due = time + self.idle
        self.checks = [time + 5 * SECOND]
        self.attempt = self.delete = None

    def flip(self):
        self.orig, self.resp = self.resp, self.orig
        self.orig.letters, self.resp.letters = self.resp.letters, self.orig.letters  # they stay with the role
        self.orig.spoken = self.resp.spoken = True
        self.partial = False

    def side(self, name):
        return (self.orig, self.resp) if self.orig.name == name else (self.resp, self.orig)

    # -- letters --

    def add(self, side, letter):
        self.history += letter if side is self.orig else letter.lower()

    def once(self, side, letter):
        if letter not in side.letters:
            side.letters.add(letter)
            self.add(side, letter)

    def numbered(self, side, bit, letter, number):
        if bit not in side.letters or side.number_of.get(bit, 0) != number:
            self.add(side, letter)
        side.letters.add(bit)
        side.number_of[bit] = number

    def counted(self, side, letter):
        n = side.counts[letter] = side.counts.get(letter, 0) + 1
        if str(n).strip("0") == "1":
            self.add(side, letter)

    # -- a segment --

    def take(self, sender, s, time):
        me, peer = self.side(sender)
        flags, length = s["flags"], s["payload"]
        syn, fin, rst, ack = ("S" in flags), ("F" in flags), ("R" in flags), ("A" in flags)
        if not me.spoken:
            if me is self.orig:
                self.partial = not syn or ack
            elif not self.partial:
                self.partial = not syn
        span = syn + fin + (0 if rst else length)
        end = s["seq"] + span
        self.numbers(me, s["seq"], end, syn)
        number = s["seq"] - me.start
        self.flag_letters(me, s, number, syn, fin, rst, ack)
        if s["window"] == 0 and not rst and peer.state != CLOSED and me.state != RESET:
            self.counted(me, "W")
        if not (me.closed and peer.closed):
            self.last_time = time
        if fin:
            me.fin = (number + span) % 2**64
        acked = 0
        if ack:
            if peer.state == INACTIVE:
                acked = 1
                peer.start = peer.acked = peer.last = s["ack"] - 1
            else:
                acked = max(0, s["ack"] - peer.start)
                if s["ack"] >= peer.start and not rst and s["ack"] > peer.acked:
                    peer.acked = s["ack"]
        ahead = end - me.last
        if (syn or rst) and abs(ahead) > FAR:
            pass
        elif fin and me.last == me.start + 1:
            if end < me.last:
                raise Wrapped
            me.last = end
        elif me.state == RESET:
            pass
        elif ahead > 0:
            me.last = end
        elif length:
            self.counted(me, "T")
        close, tell = self.states(me, peer, s, syn, fin, rst, ack, time)
        if ack and self.acknowledged(peer, me, acked):
            self.check_end(peer, me)
        me.spoken = True
        if length and not rst and number >= 0 and not s.get("cut"):
            self.data(me, peer, number + syn, length)
        self.check_end(me, peer)
        if close:
            self.close(me, peer, tell)
        me.packets += 1
        me.ip_bytes += s["ip_bytes"]

    def numbers(self, me, seq, end, syn):
        if me.state == INACTIVE:
            me.start = me.acked = seq if syn else seq - 1
            me.last = end if syn else seq
        elif syn and (
            (me.state in (SYN_SENT, SYN_ACK_SENT) and seq != me.start)
            or me.state in (ESTABLISHED, PARTIAL)
            or (me.state == RESET and me.before == INACTIVE)
        ):
            me.start = me.acked = seq
            me.last = end

    def flag_letters(self, me, s, number, syn, fin, rst, ack):
        if syn + fin + rst > 1:
            self.once(me, "I" if fin and rst else "Q")
        elif syn:
            self.numbered(me, "S", "H" if ack else "S", number)
        elif fin:
            self.numbered(me, "F", "F", number + s["payload"])
        elif rst:
            self.numbered(me, "R", "R", number)
        elif s["payload"] or ack:
            if self.history == "H":
                self.flip()
                self.history = "^h"
            self.once(me, "D" if s["payload"] else "A")

    def states(self, me, peer, s, syn, fin, rst, ack, time):
        orig = me is self.orig
        close = tell = False
        if me.state == INACTIVE:
            if syn:
                if orig:
                    me.to(SYN_ACK_SENT if ack else SYN_SENT, peer, self)
                    self.attempt = time + 5 * SECOND
                else:
                    if not ack and peer.state == SYN_ACK_SENT and s["seq"] == me.start:
                        self.flip()
                        self.history += "^"
                        peer.to(ESTABLISHED, me, self)
                    if peer.state == SYN_SENT:
                        peer.to(ESTABLISHED, me, self)
                    me.to(ESTABLISHED, peer, self)
            if fin:
                me.to(CLOSED, peer, self)
                close = tell = True
            if rst:
                me.to(RESET, peer, self)
                reject = peer.state == ESTABLISHED if orig else peer.state in (SYN_SENT, SYN_ACK_SENT)
                close, tell = True, not reject
            if me.state == INACTIVE:
                if not orig and not s["payload"] and peer.state == SYN_SENT:
                    pass
                elif ack and peer.state == ESTABLISHED:
                    me.to(ESTABLISHED, peer, self)
                    self.partial = False
                else:
                    me.to(PARTIAL, peer, self)
        elif me.state in (SYN_SENT, SYN_ACK_SENT):
            if fin:
                me.to(CLOSED, peer, self)
                close = tell = True
            if rst:
                me.to(RESET, peer, self)
                self.active = False
                close = True
        elif me.state in (ESTABLISHED, PARTIAL):
            if syn and not ack and me.state == PARTIAL and peer.state == INACTIVE:
                me.to(SYN_SENT, peer, self)
            if fin and not rst:
                me.to(CLOSED, peer, self)
                if peer.state == RESET and peer.before == CLOSED:
                    peer.to(CLOSED, me, self)
                close = tell = True
            if rst:
                me.to(RESET, peer, self)
                close, tell = True, False
                if peer.state != RESET or peer.before != ESTABLISHED:
                    self.active = False
        elif me.state == CLOSED and rst and peer.state != CLOSED:
            me.to(RESET, peer, self)
            close = not me.closed
        return close, tell

    # -- data --

    def data(self, me, peer, begin, length):
        known = me.trim if me.fin is None else max(me.trim, me.acked - me.start)
        if me.given_up or begin + length <= known:
            return
        before = me.reach
        me.held |= set(range(max(begin, known), begin + length))
        self.deliver(me)
        if not me.unheard():
            return
        if me.reach > before and me.size(peer) > MUCH:
            me.held = {position for position in me.held if position >= me.reach}
            me.trim = me.reach
        if me.held and max(me.held) + 1 - me.reach > MUCH:
            me.held = set()
            me.given_up = True

    def deliver(self, me):
        while me.reach in me.held:
            me.reach += 1

    def gap(self, me, peer, length):
        if me.clean() and peer.clean():
            self.counted(me, "G")
            self.missed += length

    def acknowledged(self, me, peer, number):
        """`number` of the data of `me` is acknowledged. Whether that was news."""
        if me.fin is not None and number >= me.fin:
            number = (me.fin - 1) % 2**64
        if number <= me.trim:
            return False
        if number > me.reach and not (number <= 2 and self.partial):
            while number > me.reach:
                above = [position for position in me.held if me.reach < position < number]
                stop = min(above, default=number)
                if not me.given_up:
                    self.gap(me, peer, stop - me.reach)
                me.reach = stop
                self.deliver(me)
        me.held = {position for position in me.held if position >= number}
        self.deliver(me)
        me.trim = number
        return True

    # -- closing --

    def check_end(self, me, peer):
        if me.at_end or not (me.fin is not None or me.state in (CLOSED, RESET)) or me.pending(peer):
            return
        me.at_end = True
        if self.deferred:
            self.close(me, peer, self.told)
            self.deferred = False

    def close(self, me, peer, tell):
        if me.pending(peer):
            self.deferred = True
            self.told = self.told or tell
            return
        self.deferred = False
        if me.closed:
            return
        me.closed = True
        if me.state == RESET or peer.closed or peer.state == INACTIVE:
            self.checks, self.attempt = [], None
            self.delete = self.last_time + 5 * SECOND
        elif me.before != INACTIVE:
            self.checks.append(self.last_time + 6 * SECOND)

    # -- timers --

    def expired(self, now):
        """Let every timer up to `now` fire, in order. Whether the connection is gone."""
        while True:
            due = [(when, "check", i) for i, when in enumerate(self.checks)]
            others = ((self.idle_due, "idle"), (self.attempt, "attempt"), (self.delete, "delete"))
            due += [(when, kind, 0) for when, kind in others if when is not None]
            due = [each for each in due if each[0] <= now]
            if not due:
                return False
            _, kind, which = min(due)
            if kind == "delete":
                return True
            if kind == "idle":
                if self.last_time + self.idle <= now:
                    return True
                self.idle_due = self.last_time + self.idle
            elif kind == "attempt":
                self.attempt = None
                if self.active and self.orig.state in (SYN_SENT, SYN_ACK_SENT) and self.resp.state == INACTIVE:
                    return True
            else:
                if not self.active:
                    self.checks.pop(which)
                    continue
                states = (self.orig.state, self.resp.state)
                if self.last_time + 5 * SECOND < now:
                    if (self.orig.closed or self.resp.closed) and (
                        (self.orig.closed and self.resp.closed) or RESET in states or INACTIVE in states
                    ):
                        return True
                    if states == (INACTIVE, INACTIVE):
                        return True
                self.checks[which] = now + 6 * SECOND

    def reused(self, s):
        if "S" not in s["flags"]:
            return False
        side = self.orig
        if "A" in s["flags"]:
            if self.orig.state != INACTIVE:
                return False
            side = self.resp
        if self.orig.closed or self.resp.closed:
            return True
        if s["seq"] == side.start:
            return False
        return not (
            "A" not in s["flags"] and self.orig.state == SYN_ACK_SENT and self.resp.state == INACTIVE
            and s["seq"] == self.resp.start
        )

    # -- the result --

    def conn_state(self):
        orig, resp = self.orig.state, self.resp.state
        idle = (INACTIVE, PARTIAL)
        sizes = self.orig.size(self.resp), self.resp.size(self.orig)
        if resp == RESET:
            if orig in (SYN_SENT, SYN_ACK_SENT) or (orig == RESET and sizes == (0, 0)):
                return "REJ"
            return "RSTRH" if orig in idle else "RSTR"
        if orig == RESET:
            if resp not in idle:
                return "RSTO"
            text = self.history.removeprefix("^")
            lone = text.startswith("S") and "R" in text and not set(text[1 : text.index("R")]) & set("HAFGIQ")
            return "RSTOS0" if lone else "OTH"
        if orig == resp == CLOSED:
            return "SF"
        if orig == CLOSED:
            return "SH" if resp in idle else "S2"
        if resp == CLOSED:
            return "SHR" if orig in idle else "S3"
        if (orig, resp) == (SYN_SENT, INACTIVE):
            return "S0"
        return "S1" if orig == resp == ESTABLISHED else "OTH"

    def told_as(self):
        return {
            "first_ns": self.first,
            "orig": self.orig.name,
            "conn_state": self.conn_state(),
            "history": self.history,
            "duration_ns": max(0, self.last_time - self.first),
            "bytes": (self.orig.size(self.resp), self.resp.size(self.orig)),
            "packets": (self.orig.packets, self.resp.packets),
            "ip_bytes": (self.orig.ip_bytes, self.resp.ip_bytes),
            "missed": self.missed % 2**64,
        }


def play(segments, serves=lambda port: False, ports=None):
    """What Zeek would log of (sender, time, segment) on one 4-tuple."""
    rows, row = [], None
    for sender, time, s in segments:
        if row is not None and (row.expired(time) or row.reused(s)):
            rows.append(row.told_as())
            row = None
        if row is None:
            row = Row(sender, time, s)
            if ports and ("S" not in s["flags"] or "A" in s["flags"]):
                source, target = ports[sender], ports["ba"[sender == "b"]]
                if serves(source) and (not serves(target) or ("S" not in s["flags"] and source < target)):
                    row.orig, row.resp = row.resp, row.orig
                    row.history = "^"
        row.take(sender, s, time)
    if row is not None:
        rows.append(row.told_as())
    return rows
