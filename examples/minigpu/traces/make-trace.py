#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes three-rings.trace.txt: a made-up recording, the same at every run.

Purpose. Something to replay for the demo and the tests that was recorded nowhere and belongs to nobody. A game, a compositor and a
video player use three rings of a GPU for 220 ms. The rings are simulated: in order, one job at a time.

What it has on purpose:
- both styles of names: ring gfx as amdgpu's own events of 2017, rings comp_1.0.0 and sdma0 as the scheduler's events of Linux 6.17;
- dependencies between rings (an upload, then a draw; a decode, then a composition);
- jobs that were submitted before the recording began, and jobs that had not signaled when it ended;
- hardware fences that share context 0, events of other kinds, task names with blanks, brackets and colons.

Usage: make-trace.py > three-rings.trace.txt
"""
import random

START = 4211.502_000  # s, of the first event
LENGTH = 220_000  # us
rng = random.Random(20170317)


class Ring:
    def __init__(self, name, modern):
        self.name, self.modern = name, modern
        self.free_at = 0.0
        self.hw_seqno = 1000


class Context:
    def __init__(self, ring, number, task):
        self.ring, self.number, self.task = ring, number, task
        self.seqno = rng.randrange(100, 5000)
        self.last_run = 0.0


events = []


def event(time, task, cpu, text):
    events.append((time, len(events), f"{task:>20} [{cpu:03d}] {START + time / 1e6:.6f}: {text}"))


def dma_fence(time, driver, timeline, context, seqno, what="signaled"):
    event(time, "<idle>-0", rng.randrange(4), f"dma_fence_{what}: driver={driver} timeline={timeline} context={context} seqno={seqno}")


def submit_event(c, time):
    if c.ring.modern:
        queued = rng.randrange(3)
        return event(time, c.task, 1, f"drm_sched_job_queue: dev=0000:04:00.0, fence={c.number}:{c.seqno}, ring={c.ring.name}, "
                     f"job count:{queued}, hw job count:{queued}, client_id:{c.number // 10}")
    return event(time, c.task, 1, f"amdgpu_cs_ioctl: sched_job_id={c.number * 1000 + c.seqno} timeline={c.ring.name} context={c.number} "
                 f"seqno={c.seqno} fence=0 ring_name=18446622900245085648 num_ibs={rng.choice((1, 3))}")


def run_event(c, time, seqno):
    task = f"{c.ring.name}-190"
    if c.ring.modern:
        event(time, task, 3, f"drm_sched_job_run: dev=0000:04:00.0, fence={c.number}:{seqno}, ring={c.ring.name}, job count:0, "
              f"hw job count:1, client_id:{c.number // 10}")
    else:
        event(time, task, 3, f"amdgpu_sched_run_job: sched_job_id={c.number * 1000 + seqno} timeline={c.ring.name} context={c.number} "
              f"seqno={seqno} ring_name=18446622900245085648 num_ibs=1")
    dma_fence(time + rng.randrange(1, 6), "drm_sched" if c.ring.modern else "amd_sched", c.ring.name, c.number - 1, seqno)


def signal_events(c, time, seqno):
    c.ring.hw_seqno += 1
    dma_fence(time, "amdgpu", c.ring.name, 0, c.ring.hw_seqno)
    if c.ring.modern:
        event(time, "<idle>-0", 2, f"drm_sched_job_done: fence={c.number}:{seqno} signaled")
    else:
        dma_fence(time, "amd_sched", c.ring.name, c.number, seqno)


def job(c, time, work, after=None):
    """A job of @work us, submitted at @time, that waits for the job @after. Returns its finished fence and its end."""
    c.seqno += 1
    if after and c.ring.modern:
        event(time - 2, c.task, 1, f"drm_sched_job_add_dep: fence={c.number}:{c.seqno} depends on fence={after[0]}:{after[1]}")
    submit_event(c, time)
    run = max(time + rng.randrange(15, 90), c.last_run, after[2] + 8 if after else 0)
    start = max(run, c.ring.free_at)
    end = start + work
    if start > run + 200:  # the ring holds two jobs: the kernel hands over the second while the first works
        run = start - rng.randrange(50, 200)
    c.last_run, c.ring.free_at = run, end
    run_event(c, run, c.seqno)
    signal_events(c, end, c.seqno)
    return c.number, c.seqno, end


gfx, comp, sdma = Ring("gfx", False), Ring("comp_1.0.0", True), Ring("sdma0", True)
game = Context(gfx, 105, "RenderThread [1]-2512")
shell = Context(gfx, 4929, "amdgpu_cs:0-1150")
video = Context(comp, 311, "vlc: decode #2-3301")
upload = Context(sdma, 73, "RenderThread [1]-2512")

for frame in range(-1, 27):  # 120 frames a second
    t = frame * 8333.0 + rng.randrange(0, 300)
    if frame % 2 == 0:
        uploaded = job(upload, t + 20, rng.randrange(300, 900))
        job(game, t + 400, rng.randrange(400, 900), uploaded)
    job(game, t + 700, rng.randrange(700, 1500))
    job(game, t + 1500, rng.randrange(900, 2400))
    decoded = job(video, t + 900, rng.randrange(1500, 3500))
    if frame % 3 == 0:
        job(video, t + 3300, rng.randrange(200, 500), decoded)
    job(upload, t + 5200, rng.randrange(60, 200))
    job(shell, t + 5600, rng.randrange(300, 700))
    job(shell, t + 6100, rng.randrange(200, 500), decoded)
    event(t + 8000, "<...>-0", 1, f"drm_vblank_event: crtc=0 seq={37841180 + frame}")

print("# SPDX-License-Identifier: MIT")
print("# Made by make-trace.py; recorded nowhere.")
print("cpus=4")
for time, _, line in sorted(events):
    if 0 <= time < LENGTH:
        print(line)
