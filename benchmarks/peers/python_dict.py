"""The churn loop in plain Python, as well as it can be written: a dict of lists, timers in a heap or in deques.

    /usr/bin/python3 python_dict.py FILE SEGMENTS ROWS 4|6 MACHINE heapq|deque

Runs under any Python 3 without a package. The rules are those of churn.hpp. What makes it fast: one loop with everything
inlined and in locals, a row is a list, keys are bytes, segments are unpacked before the clock starts, no garbage collector.

heapq   a heap of (tick, number, row): one entry when a connection begins, one when it closes; entries are validated when due
deque   the tuned form: a deque for each constant wait, so a timer is an append and a popleft
"""

from __future__ import annotations

import gc
import json
import mmap
import struct
import sys
from collections import deque
from heapq import heappop, heappush
from time import perf_counter_ns

SEGMENT = struct.Struct("=q16s16sHHIIIIIHHHBBII")
PIECE = 65_536  # segments unpacked at a time

# Where things stand in a row; the two of a pair belong to the two sides.
STATE, SHIFT, DEADLINE, LAST, SND_NXT, RCV_NXT, WINDOW, PACKETS, BYTES, ALIVE, KEY = 0, 2, 4, 5, 6, 8, 10, 12, 14, 16, 17

M32 = 0xFFFFFFFF


class Tracker:
    """All of it: `apply` for segments, `advance` for what is due."""

    def __init__(self, machine, timers):
        self.machine = machine
        self.rows = {}
        self.pairs = [0] * 256
        self.tallies = dict.fromkeys(("connections", "ended", "replaced", "retransmitted", "missed_bytes", "stray"), 0)
        self.tick = 0
        self.epoch = None
        self.now = self.start = self.end = -(1 << 63)
        self.heap = [] if timers == "heapq" else None
        self.queues = [deque() for _ in range(3)]
        self.numbers = 0

    def advance(self):
        """Let go of every row whose time is up."""
        tick, rows, pairs = self.tick, self.rows, self.pairs
        ended = 0
        if self.heap is not None:
            heap = self.heap
            while heap and heap[0][0] <= tick:
                row = heappop(heap)[2]
                if row[ALIVE]:
                    if row[DEADLINE] <= tick:
                        row[ALIVE] = False
                        pairs[row[0] * 16 + row[1]] -= 1
                        del rows[row[KEY]]
                        ended += 1
                    elif row[0] != self.machine["TIME_WAIT"] and row[1] != self.machine["TIME_WAIT"]:
                        self.numbers += 1
                        heappush(heap, (row[DEADLINE], self.numbers, row))
        else:
            for wait, queue in enumerate(self.queues):
                while queue and queue[0][0] <= tick:
                    row = queue.popleft()[1]
                    if row[ALIVE]:
                        if row[DEADLINE] <= tick:
                            row[ALIVE] = False
                            pairs[row[0] * 16 + row[1]] -= 1
                            del rows[row[KEY]]
                            ended += 1
                        elif row[0] != self.machine["TIME_WAIT"] and row[1] != self.machine["TIME_WAIT"]:
                            queue.append((tick + self.machine["WAIT_TICKS"][wait], row))
        self.tallies["ended"] += ended

    def apply(self, segments):
        """Segments in their order, as tuples of the fields of `SEGMENT`."""
        machine = self.machine
        following, timeout, waits, tick_ns = machine["NEXT"], machine["TIMEOUT_TICKS"], machine["WAIT_TICKS"], machine["TICK_NS"]
        closed, syn_rcvd, established, close_wait, time_wait = (
            machine[n] for n in ("CLOSED", "SYN_RCVD", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT")
        )
        syn_sent = machine["SYN_SENT"]
        wants_ack = (machine["FIN_WAIT_1"], machine["CLOSING"], machine["LAST_ACK"])
        wants_fin = (established, machine["FIN_WAIT_1"], machine["FIN_WAIT_2"])
        events = ("RCV_ACK_OF_SYN", "RCV_ACK_OF_FIN", "CLOSE", "RCV_FIN", "RCV_RST", "ABORT", "RCV_SYN_ACK")
        ack_of_syn, ack_of_fin, close, rcv_fin, rcv_rst, abort, rcv_syn_ack = (machine[n] for n in events)
        rows, pairs, tallies, heap, queues = self.rows, self.pairs, self.tallies, self.heap, self.queues
        get = rows.get
        tick, start, end, now = self.tick, self.start, self.end, self.now
        later = 1  # 0 where now is the very beginning of a tick
        for time, src, dst, sport, dport, seq, ack, payload, _, _, window, flags, _, wscale, options, _, _ in segments:
            if time >= end:
                if self.epoch is None:
                    self.epoch = time
                self.tick = tick = (time - self.epoch) // tick_ns
                self.now = now = time
                self.start = start = self.epoch + tick * tick_ns
                self.end = end = start + tick_ns
                self.advance()
            elif time > now:
                now = time
            later = tick + (now != start)
            if src < dst or (src == dst and sport < dport):
                key = (src, dst, sport, dport)
                s, o = 0, 1
            else:
                key = (dst, src, dport, sport)
                s, o = 1, 0
            row = get(key)
            waited = changed = False
            if row is None or (flags & 2 and row[0] in (closed, time_wait) and row[1] in (closed, time_wait)):
                if row is not None:
                    row[ALIVE] = False
                    pairs[row[0] * 16 + row[1]] -= 1
                    tallies["replaced"] += 1
                    tallies["ended"] += 1
                if flags & 18 != 2:
                    tallies["stray"] += 1
                    continue
                row = [0, 0, 15, 15, 0, time, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, True, key]
                rows[key] = row
                row[s] = syn_sent
                row[o] = syn_rcvd
                pairs[row[0] * 16 + row[1]] += 1
                row[SHIFT + s] = wscale if options & 2 else 15
                row[SND_NXT + s] = (seq + 1 + payload) & M32
                row[RCV_NXT + o] = seq
                tallies["connections"] += 1
                if heap is None:
                    queues[0].append((later + waits[0], row))
                else:
                    self.numbers += 1
                    heappush(heap, (later + waits[0], self.numbers, row))
            else:
                before = row[0] * 16 + row[1]
                waited = row[0] == time_wait or row[1] == time_wait or not before
                if flags & 4:
                    scale = row[SHIFT + o]
                    scale = 0 if scale == 15 or row[SHIFT + s] == 15 else scale
                    if seq == row[SND_NXT + s] or (seq - row[RCV_NXT + o]) & M32 <= row[WINDOW + o] << scale:
                        row[o] = following[row[o]][rcv_rst]
                        row[s] = following[row[s]][abort]
                        changed = True
                elif flags & 2:
                    if flags & 16 and row[o] == syn_sent:
                        row[SHIFT + s] = wscale if options & 2 else 15
                        row[SND_NXT + s] = (seq + 1 + payload) & M32
                        row[RCV_NXT + s] = ack
                        row[RCV_NXT + o] = seq
                        row[o] = following[syn_sent][rcv_syn_ack]
                        changed = True
                else:
                    beyond = (ack - row[SND_NXT + o]) & M32
                    state = row[o]
                    if beyond == 0:
                        if state == syn_rcvd:
                            row[o] = state = following[state][ack_of_syn]
                            changed = True
                        if state in wants_ack:
                            row[o] = state = following[state][ack_of_fin]
                            changed = True
                    elif beyond < 0x80000000:
                        scale = row[SHIFT + s]
                        scale = 0 if scale == 15 or row[SHIFT + o] == 15 else scale
                        if beyond > (row[WINDOW + s] << scale) + (1 << 20):
                            continue
                        tallies["missed_bytes"] += beyond
                        row[SND_NXT + o] = ack
                        if state in wants_ack:
                            row[o] = state = following[state][ack_of_fin]
                            changed = True
                    if (ack - row[RCV_NXT + s]) & M32 < 0x80000000:
                        row[RCV_NXT + s] = ack
                    length = payload + (flags & 1)
                    if length:
                        upto = (seq + length) & M32
                        fresh = (upto - row[SND_NXT + s]) & M32
                        if fresh == 0 or fresh >= 0x80000000:
                            tallies["retransmitted"] += 1
                        else:
                            if fresh > length:
                                tallies["missed_bytes"] += fresh - length
                            row[SND_NXT + s] = upto
                            if flags & 1:
                                mine = row[s]
                                if mine in (established, close_wait, syn_rcvd):
                                    row[s] = following[mine][close]
                                if state in wants_fin:
                                    row[o] = following[state][rcv_fin]
                                changed = True
                if changed:
                    pairs[before] -= 1
                    pairs[row[0] * 16 + row[1]] += 1
            row[WINDOW + s] = window
            row[PACKETS + s] += 1
            row[BYTES + s] += payload
            row[LAST] = time
            a, b = row[0], row[1]
            if a != time_wait and b != time_wait and a + b:
                row[DEADLINE] = later + timeout[a * 16 + b]
            elif not waited:
                row[DEADLINE] = due = later + timeout[a * 16 + b]
                if heap is None:
                    queues[1 if a + b else 2].append((due, row))
                else:
                    self.numbers += 1
                    heappush(heap, (due, self.numbers, row))
        self.now = now

    def report(self):
        """What there is now, as the C++ peers say it."""
        self.advance()
        counts = [0] * 11
        for pair, n in enumerate(self.pairs):
            if n:
                counts[pair // 16] += n
                counts[pair % 16] += n
        total = 0
        for row in self.rows.values():
            total += sum(row[SND_NXT:PACKETS]) + row[LAST] + row[DEADLINE]
            total += (row[PACKETS] & 0xFFFF) + (row[PACKETS + 1] & 0xFFFF) + (row[BYTES] & M32) + (row[BYTES + 1] & M32)
        return {"counts": counts, "live": len(self.rows), "sum": total % (1 << 64), **self.tallies}


def anonymous_bytes():
    """What this process holds of memory of its own."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def main():
    path, segments, _, _, machine, timers = sys.argv[1:]
    with open(machine) as file:
        tracker = Tracker(json.load(file), timers)
    with open(path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), int(segments) * SEGMENT.size, access=mmap.ACCESS_READ))
    gc.disable()
    empty = anonymous_bytes()
    print("ready", flush=True)
    for line in sys.stdin:
        command = line.split()
        if command[0] == "apply":
            spent = 0
            for at in range(0, int(command[1]), PIECE):
                upto = min(at + PIECE, int(command[1]))
                unpacked = list(SEGMENT.iter_unpack(memory[at * SEGMENT.size : upto * SEGMENT.size]))
                begin = perf_counter_ns()
                tracker.apply(unpacked)
                spent += perf_counter_ns() - begin
                del unpacked
            print(spent, flush=True)
        elif command[0] == "report":
            print(json.dumps({**tracker.report(), "bytes": anonymous_bytes() - empty}), flush=True)
        else:
            break


if __name__ == "__main__":
    main()
