#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of examples/minigpu, from outside: what it prints, writes and returns.

Usage: test_minigpu.py MINIGPU GROUP

GROUP is the name of a class below. A hash is right when sha256sum says the same. Exit status 77: what the group needs is not there (the
directory of real recordings: LF_SHARED_DATA in the environment, or shared/data beside the repository).
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
TRACE = SOURCE / "examples/minigpu/traces/three-rings.trace.txt"
LAYOUT = SOURCE / "examples/minigpu/layouts/small-frame.csv"
SHARED = Path(os.environ.get("LF_SHARED_DATA", SOURCE.parent / "shared/data"))
SHARED_TRACE = SHARED / "amdgpu-2017.trace.txt"
SHARED_LAYOUT = SHARED / "adreno-va-layout-230.csv"
MIB = 1 << 20
PATIENCE = 280  # s; sanitizers are slow
LOSING_SEED = 61  # of --chaos: the copy engine is lost early, and not by the two seeds behind it
FAILING_SEED = 7  # of --chaos: the copy engine is lost, with a run that fails
minigpu = []  # the command: the program, behind the emulator that a program of another machine needs


def run(*args, **kwargs):
    """Runs it with the library's validators: whatever the library has to say is a mistake."""
    env = {**os.environ, "LF_VALIDATE": "all"}
    result = subprocess.run([*minigpu, *map(str, args)], capture_output=True, timeout=PATIENCE, env=env, **kwargs)
    assert b"libfence: " not in result.stderr, result.stderr.decode()
    return result


def sha256sum(*paths):
    return subprocess.run(["sha256sum", *map(str, paths)], capture_output=True, check=False).stdout


def noise(size, seed):
    """Bytes that are different everywhere, so that a block in the wrong place shows."""
    import hashlib
    return hashlib.shake_128(str(seed).encode()).digest(size)


class Base(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="minigpu-test-")
        self.path = Path(self.directory.name)

    def tearDown(self):
        self.directory.cleanup()

    def file(self, name, content):
        path = self.path / name
        path.write_bytes(content)
        return path

    def sizes(self, *sizes):
        return [self.file(f"{size}.bin", noise(size, size)) for size in sizes]

    def assert_hashes(self, files, *options):
        result = run(*options, "hash", *files)
        self.assertEqual(result.stdout, sha256sum(*files), result.stderr.decode())
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stderr.decode()

    def trace(self, *lines):
        return self.file("made.trace.txt", "".join(line + "\n" for line in lines).encode())


def table_row(text, name):
    """The numbers of a row of the table of engines: jobs, fences, runs, failed, resets, lost."""
    row = re.search(rf"^{name} +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) ", text, re.M)
    assert row, text
    return dict(zip(("jobs", "fences", "runs", "failed", "resets", "lost"), map(int, row.groups())))


def evictions(text):
    """How many buffers were evicted, how many of those with jobs pending, and how many were brought back."""
    line = re.search(r"^(\d+) buffers evicted from device memory, (\d+) of them with jobs pending; (\d+) brought back", text, re.M)
    assert line, text
    return tuple(map(int, line.groups()))


def activity(text, name):
    """How often the memory manager did something, by the table."""
    return int(re.search(rf"^{name} +(\d+) ", text, re.M).group(1))


def rollbacks(text):
    return int(re.search(r"transactions of locks, rolled back (\d+) times$", text, re.M).group(1))


def strikes(text):
    """What chaos did: buffers evicted, parts bound again, buffers closed."""
    line = re.search(r"^chaos: (\d+) buffers evicted, (\d+) parts of them bound again, (\d+) closed with a job pending$", text, re.M)
    assert line, text
    return tuple(map(int, line.groups()))


def counts(text, name):
    """The two numbers (record, replay) of a row of the report of a replay."""
    row = re.search(rf"^{name} +(\d+) +(\d+)$", text, re.M)
    assert row, text
    return tuple(map(int, row.groups()))


class Hash(Base):
    def test_sizes_around_every_boundary(self):
        self.assert_hashes(self.sizes(0, 1, *range(55, 66), MIB - 1, MIB, MIB + 1, 4 * MIB, 5 * MIB + 17))

    def test_file_larger_than_device_memory(self):
        report = self.assert_hashes(self.sizes(65 * MIB + 4321), "--vram", "8")
        self.assertIn("through 8.00 MiB of device memory", report)
        self.assertEqual(table_row(report, "digest 0")["jobs"], 66)
        total = table_row(report, "total")
        self.assertEqual(total["jobs"], 2 * 66 + activity(report, "evict") + activity(report, "bring in"))
        self.assertEqual(total["fences"], 2 * total["jobs"])
        self.assertEqual(total["runs"], total["jobs"])
        self.assertEqual(total["failed"], 0)

    def test_hardly_any_device_memory_serves_many_files(self):
        self.assert_hashes(self.sizes(3 * MIB + 1, 2 * MIB, 1, 4 * MIB - 1, 0), "--vram=256K")

    def test_buffers_leave_device_memory_before_they_are_digested_and_come_back(self):
        for vram in ("512K", "1", "2048K", "4"):
            evicted, _, back = evictions(self.assert_hashes(self.sizes(12 * MIB + 1), "--vram", vram))
            self.assertGreater(evicted, 4)
            self.assertGreater(back, 2)

    def test_nothing_is_evicted_while_everything_fits(self):
        report = self.assert_hashes(self.sizes(5 * MIB, 3 * MIB + 1), "--vram", 32)
        self.assertEqual(evictions(report), (0, 0, 0))
        self.assertEqual(rollbacks(report), 0)

    def test_every_buffer_is_bound_and_unbound_once(self):
        report = self.assert_hashes(self.sizes(5 * MIB, 3 * MIB + 1), "--vram", 32)
        spaces = 2 * 4  # 10 chunks in turns of 4 spaces, four in a row: the first three, which both files' states are bound in as well
        binds = activity(report, "bind")
        self.assertGreaterEqual(binds, 2 * 10 + 2 * 3)
        self.assertLessEqual(binds, 2 * 10 + 2 * spaces)

    def test_files_are_spread_over_both_digest_engines(self):
        report = self.assert_hashes(self.sizes(3 * MIB, 3 * MIB + 1, 3 * MIB + 2, 3 * MIB + 3))
        self.assertEqual(table_row(report, "digest 0")["jobs"], 8)
        self.assertEqual(table_row(report, "digest 1")["jobs"], 8)

    def test_many_files_in_the_order_of_the_arguments(self):
        self.assert_hashes([self.file(f"f{i}", noise(i * 37, i)) for i in range(150)])

    def test_options_stand_before_or_after_the_command(self):
        file = self.file("a", b"abc")
        for args in (("--vram", 2, "hash", file), ("hash", file, "--vram", 2), ("hash", "--vram=512K", "--", file)):
            self.assertEqual(run(*args).stdout, sha256sum(file))

    def test_names_that_would_break_a_line_are_escaped(self):
        self.assert_hashes([self.file("a\nb", b"1"), self.file("back\\slash", b"2"), self.file("with blank", b"3")])

    def test_standard_input(self):
        result = run("hash", "-", input=noise(2 * MIB + 5, 1))
        file = self.file("same", noise(2 * MIB + 5, 1))
        self.assertEqual(result.stdout.split()[0], sha256sum(file).split()[0])

    def test_pipe_that_comes_in_pieces(self):
        script = "import sys, time\nfor i in range(40):\n\tsys.stdout.write('x' * 50000); sys.stdout.flush(); time.sleep(0.002)"
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as pieces:
            result = run("hash", "-", stdin=pieces.stdout)
        self.assertEqual(result.stdout.split()[0], sha256sum(self.file("same", b"x" * 2000000)).split()[0])

    def test_file_without_a_size(self):
        self.assert_hashes(["/proc/version"])


class Errors(Base):
    def check(self, *bad):
        good = self.sizes(100, 2 * MIB)
        result = run("hash", good[0], *bad, good[1])
        self.assertEqual(result.stdout, sha256sum(*good))
        self.assertEqual(result.returncode, 1)
        return result.stderr.decode()

    def test_missing_file_is_named_and_the_others_are_done(self):
        self.assertIn(f"{self.path}/nowhere: No such file", self.check(self.path / "nowhere"))

    def test_directory_is_named_and_the_others_are_done(self):
        self.assertIn(f"{self.path}: Is a directory", self.check(self.path))

    def test_file_that_cannot_be_read_is_named_and_the_others_are_done(self):
        self.assertIn("/proc/self/mem: Input/output error", self.check("/proc/self/mem"))

    @unittest.skipIf(os.geteuid() == 0, "root may read everything")
    def test_file_without_permission_is_named_and_the_others_are_done(self):
        file = self.file("secret", b"x")
        file.chmod(0)
        self.assertIn(f"{file}: Permission denied", self.check(file))

    def test_all_of_them_at_once(self):
        text = self.check(self.path, "/proc/self/mem", self.path / "nowhere")
        self.assertEqual(len(re.findall("^minigpu: ", text, re.M)), 3)

    def test_no_progress_in_a_pipe(self):
        self.assertNotIn("\r", self.check(self.path / "nowhere"))

    def test_file_that_becomes_shorter_while_it_is_read(self):
        file = self.file("shrinks", noise(8 * MIB, 8))
        fifo = self.path / "fifo"
        os.mkfifo(fifo)
        # The driver opens four files at once and reads a chunk of each in turn; the pipe makes it stop after the first of `shrinks`.
        with subprocess.Popen([*minigpu, "hash", file, fifo], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            with open(fifo, "wb") as pipe:
                pipe.write(noise(MIB // 2, 1))
                pipe.flush()
                os.truncate(file, MIB + 10)
            out, err = process.communicate(timeout=PATIENCE)
        self.assertIn(f"{file}: file became shorter".encode(), err)
        self.assertEqual(process.returncode, 1)
        self.assertEqual(out.split()[0], sha256sum(self.file("same", noise(MIB // 2, 1))).split()[0])

    def test_output_that_cannot_be_written_is_named(self):
        for option in ("--svg", "--trace"):
            result = run("hash", TRACE, option, self.path / "no/such/file")
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{self.path}/no/such/file: cannot be written", result.stderr.decode())

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_is_an_error(self):
        self.assertEqual(run("hash", TRACE, "--svg", "/dev/full").returncode, 1)
        with open("/dev/full", "w") as full:
            result = subprocess.run([*minigpu, "hash", TRACE], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"standard output", result.stderr)

    def test_wrong_command_lines(self):
        for args, message in (
                ((), "expected a command"),
                (("frobnicate",), "not frobnicate"),
                (("hash",), "at least one file"),
                (("replay",), "expected one trace"),
                (("replay", "a", "b"), "expected one trace"),
                (("--frob", "hash", "x"), "--frob"),
                (("hash", "x", "--vram"), "requires an argument"),
                (("hash", "x", "--vram", "0"), "--vram: expected a size from 256K to"),
                (("hash", "x", "--vram", "0"), "G, in MiB or with K, M or G, not '0'"),
                (("hash", "x", "--vram", "-1"), "not '-1'"),
                (("hash", "x", "--vram", "12k"), "not '12k'"),
                (("hash", "x", "--vram", "255K"), "not '255K'"),
                (("hash", "x", "--vram", "65G"), "not '65G'"),
                (("hash", "x", "--vram", "1MB"), "not '1MB'"),
                (("hash", "x", "--vram", "99999999999999999999"), "--vram: expected"),
                (("hash", "x", "--chaos", "some"), "--chaos: expected a whole number"),
                (("replay", "x", "--chaos", "1"), "--chaos is for hash"),
                (("hash", "x", "--repeat", "0"), "--repeat: expected a whole number from 1"),
                (("hash", "x", "--minutes", "0"), "--minutes: expected a whole number from 1"),
                (("replay", "x", "--repeat", "2"), "--repeat and --minutes are for hash"),
                (("layout", "x", "--minutes", "1"), "--repeat and --minutes are for hash"),
                (("hash", "x", "--repeat", "2", "--svg", "y"), "are of one round"),
                (("hash", "x", "-", "--minutes", "1"), "standard input can be read once only"),
                (("layout",), "layout: expected one file"),
                (("layout", "a", "b"), "layout: expected one file"),
                (("layout", "a", "--svg", "x"), "not for layout"),
                (("hash", "x", "--hang-every", "often"), "--hang-every: expected"),
                (("replay", "x", "--speed", "fast"), "--speed: expected full, recorded, or a number"),
                (("replay", "x", "--speed", "0"), "--speed: expected"),
        ):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertIn(message, result.stderr.decode())
            self.assertEqual(result.stdout, b"")

    def test_help(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        for option in ("--hang-every", "--lose-engine-at", "--seed", "--faults", "--trace", "--svg", "--vram", "--chaos", "--speed",
                       "--strict", "--repeat", "--minutes"):
            self.assertIn(option, result.stdout.decode())


class Faults(Base):
    def files(self):
        return self.sizes(0, 1, MIB, 9 * MIB + 1, 4 * MIB - 1)

    def test_hang_every_third_run(self):
        total = table_row(self.assert_hashes(self.files(), "--hang-every", "3"), "total")
        self.assertGreater(total["resets"], 10)
        self.assertGreaterEqual(total["runs"], total["jobs"] + total["resets"])
        self.assertEqual(total["failed"], 0)

    def test_hang_every_second_run_with_little_memory(self):
        self.assert_hashes(self.sizes(4 * MIB, 3 * MIB + 5), "--hang-every", "2", "--vram", "2")

    def test_jobs_that_always_hang_are_given_up(self):
        files = self.sizes(10, 20)
        result = run("hash", *files, "--hang-every", "1")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout, b"")
        for file in files:
            self.assertIn(f"{file}: given up", result.stderr.decode())

    def test_engine_lost_at_any_run(self):
        files = self.files()
        for at in (1, 2, 3, 5, 7):
            report = self.assert_hashes(files, "--lose-engine-at", at, "--vram", "2")
            self.assertEqual(table_row(report, "digest 0")["lost"], 1, report)

    def test_engine_lost_at_the_very_end(self):
        self.assert_hashes(self.sizes(4 * MIB + 1), "--lose-engine-at", 5)

    def test_engine_that_lives_until_the_end_is_not_lost(self):
        report = self.assert_hashes(self.sizes(1), "--lose-engine-at", 1000)
        self.assertEqual(table_row(report, "total")["lost"], 0)

    def test_lost_late_and_reordered_interrupts(self):
        for seed in range(3):
            self.assert_hashes(self.files(), "--faults", "--seed", seed)

    def test_everything_at_once(self):
        files = self.sizes(20 * MIB + 1, 7 * MIB, 0, 6 * MIB - 1)
        rolled_back = 0
        for seed in range(3):
            report = self.assert_hashes(files, "--faults", "--hang-every", 5, "--lose-engine-at", 4 + seed, "--vram", 4, "--seed", seed)
            rolled_back += rollbacks(report)
        self.assertGreater(rolled_back, 0)


class Chaos(Base):
    """A hash is right or missing, whatever happens to memory and engines meanwhile."""

    def check(self, seed, files, *options):
        """True when it was right; False when the device was lost."""
        result = run("--chaos", seed, *options, "hash", *files)
        report = result.stderr.decode()
        expected = sha256sum(*files).splitlines()
        for line in result.stdout.splitlines():
            self.assertIn(line, expected)
        if result.returncode == 0:
            self.assertEqual(result.stdout.splitlines(), expected)
            return report
        self.assertEqual(result.returncode, 1, report)
        self.assertRegex(report, r"minigpu: the copy engine is lost for good: [1-9]\d* of \d+ files are given up")
        self.assertLess(len(result.stdout.splitlines()), len(files))
        return None

    def test_hash_is_right_or_missing(self):
        files = self.sizes(3 * MIB + 17, MIB, 0, 5 * MIB)
        reports = [self.check(seed, files, "--vram", "1") for seed in range(8)]
        right = [report for report in reports if report]
        self.assertGreaterEqual(len(right), 4)
        print(f"{len(right)} of {len(reports)} seeds kept their engines")
        for report in right:
            self.assertGreater(min(strikes(report)), 0, report)
            self.assertGreater(min(evictions(report)), 0, report)
            self.assertGreater(table_row(report, "total")["resets"], 0, report)

    def test_with_hardly_any_device_memory(self):
        self.check(21, self.sizes(MIB + 1), "--vram", "256K")

    def test_with_more_device_memory_than_there_is_to_do(self):
        self.check(22, self.sizes(4 * MIB + 1), "--vram", "64M")

    def test_many_small_files(self):
        self.check(23, [self.file(f"f{i}", noise(i * 97, i)) for i in range(60)], "--vram", "256K")

    def test_engines_that_hang_more_often(self):
        self.check(24, self.sizes(2 * MIB + 5, MIB - 1), "--vram", "1M", "--hang-every", 5)

    def test_copy_engine_lost_for_good_is_said(self):
        files = self.sizes(9 * MIB)
        self.assertTrue(any(self.check(seed, files, "--vram", "2") is None for seed in range(40)))


class Rounds(Base):
    """Again and again in one process: nothing is left behind, and a digest stays what it is."""

    def rounds(self, report):
        """Of each round: seed, files, whether the device was lost, blocks of memory left, and those that wait."""
        found = re.findall(r"^round (\d+), seed (\d+): (\d+) of \d+ files in .*?(, the device lost)?; blocks of memory left: (\d+), "
                           r"waiting to be freed: (\d+)$", report, re.M)
        self.assertEqual([int(r[0]) for r in found], list(range(1, len(found) + 1)), report)
        return [(int(seed), int(files), bool(lost), int(left), int(waiting)) for _, seed, files, lost, left, waiting in found]

    def test_rounds_leave_nothing_behind_and_print_digests_once(self):
        files = self.sizes(3 * MIB + 17, MIB, 0)
        report = self.assert_hashes(files, "--faults", "--hang-every", 5, "--seed", 7, "--vram", "1", "--repeat", 4)
        rounds = self.rounds(report)
        self.assertEqual([r[0] for r in rounds], [7, 8, 9, 10])
        self.assertEqual({r[1:] for r in rounds}, {(3, False, rounds[0][3], 0)}, report)

    def test_a_lost_device_loses_its_round_only(self):
        files = self.sizes(9 * MIB + 5)
        report = self.assert_hashes(files, "--chaos", LOSING_SEED, "--vram", "1", "--repeat", 3)
        rounds = self.rounds(report)
        self.assertEqual([(files, lost) for _, files, lost, *_ in rounds], [(0, True), (1, False), (1, False)], report)
        self.assertEqual({r[3:] for r in rounds}, {(rounds[0][3], 0)}, report)

    def test_a_device_that_is_lost_in_each_round_is_a_failure(self):
        result = run("--chaos", LOSING_SEED, "--vram", "1", "hash", *self.sizes(9 * MIB + 5))
        self.assertEqual((result.returncode, result.stdout), (1, b""))

    @unittest.skipUnless(os.path.exists("/proc/sys/kernel/random/uuid"), "no file that is different each time")
    def test_another_digest_than_before_is_a_failure(self):
        result = run("--repeat", "3", "hash", "/proc/sys/kernel/random/uuid")
        self.assertEqual(result.returncode, 1)
        self.assertIn("another digest than before, in round 2", result.stderr.decode())
        self.assertEqual(len(result.stdout.splitlines()), 1)

    def test_a_file_that_cannot_be_read_is_a_failure_in_each_round(self):
        result = run("--repeat", "2", "hash", self.path / "none")
        self.assertEqual(result.returncode, 1)
        self.assertEqual([r[1] for r in self.rounds(result.stderr.decode())], [0, 0])


class Pictures(Base):
    def outputs(self, *args):
        svg, trace = self.path / "out.svg", self.path / "out.json"
        result = run(*args, "--svg", svg, "--trace", trace)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return xml.etree.ElementTree.parse(svg).getroot(), json.loads(trace.read_bytes())["traceEvents"], result.stderr.decode()

    def check(self, *args):
        svg, events, report = self.outputs(*args)
        self.assertTrue(svg.tag.endswith("}svg"))
        self.assertEqual(svg.get("width"), "1200")
        names = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
        texts = "".join(svg.itertext())
        for name in names:
            self.assertIn(name[:12], texts)
        for event in events:
            self.assertIn(event["ph"], "MXisf")
            if event["ph"] == "X":
                self.assertGreaterEqual(event["dur"], 0)
        return events, report

    def test_bars_of_an_engine_do_not_overlap(self):
        events, _ = self.check("hash", *self.sizes(9 * MIB, 5 * MIB), "--faults", "--hang-every", 7)
        for tid in (1, 2, 3):
            bars = [e for e in events if e["ph"] == "X" and e["tid"] == tid]
            for before, after in zip(bars, bars[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 0.002)

    def test_every_run_is_a_bar_and_every_reset_a_mark(self):
        events, report = self.check("hash", *self.sizes(9 * MIB, 5 * MIB), "--hang-every", 4, "--lose-engine-at", 6)
        total = table_row(report, "total")
        self.assertEqual(sum(e["ph"] == "X" and e["cat"] == "job" for e in events), total["runs"])
        self.assertEqual(sum(e["name"] == "reset" for e in events), total["resets"])
        self.assertEqual(sum(e["name"] == "engine lost" for e in events), 1)

    def legend(self, *args, status=0):
        svg = self.path / "out.svg"
        result = run(*args, "--svg", svg)
        self.assertEqual(result.returncode, status, result.stderr.decode())
        return "\n".join(xml.etree.ElementTree.parse(svg).getroot().itertext())

    def test_legend_says_what_bars_and_numbers_are(self):
        few = self.legend("hash", *self.sizes(MIB))
        self.assertIn("\neach bar is one run, its number the chunk of the file", few)
        self.assertNotIn("faults", few)
        many = self.legend("hash", *[self.file(f"f{i}", b"x") for i in range(400)])
        self.assertIn("height is the share of time busy, colour the file with most of that; below: each bar is one run", many)
        self.assertIn("its number the sequence number in the context", self.legend("replay", TRACE))

    def test_legend_tells_an_engine_that_is_replaced_from_one_that_is_not(self):
        self.assertIn("\nengine lost, replaced\n", self.legend("hash", *self.sizes(9 * MIB, 5 * MIB), "--lose-engine-at", 6))
        self.assertIn("\nengine lost, replaced\n", self.legend("replay", TRACE, "--lose-engine-at", 6))
        self.assertIn("\nengine lost\n", self.legend("hash", *self.sizes(9 * MIB + 5), "--chaos", LOSING_SEED, "--vram", "1", status=1))

    def test_legend_names_failed_runs(self):
        # Few runs fail: most of what is lost waits. Whether one does may depend on time, so the timeline is asked.
        trace = self.path / "out.json"
        legend = self.legend("hash", *self.sizes(9000000), "--chaos", FAILING_SEED, "--vram", "1", "--trace", trace, status=1)
        failed = [e for e in json.loads(trace.read_bytes())["traceEvents"] if e["ph"] == "X" and e["args"]["result"] == "failed"]
        self.assertEqual("\nfailed run\n" in legend, bool(failed))
        print(f"{len(failed)} failed run(s)")
        self.assertNotIn("failed run", self.legend("hash", *self.sizes(10), "--lose-engine-at", 1))

    def test_moves_and_binds_have_lanes(self):
        events, report = self.check("hash", *self.sizes(9 * MIB, 5 * MIB), "--vram", 1)
        lanes = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
        for name in ("evict", "bring in", "bind"):
            bars = [e for e in events if e["ph"] == "X" and e["tid"] == lanes[name]]
            self.assertEqual(len(bars), activity(report, name))
            self.assertGreater(len(bars), 14)
            for before, after in zip(bars, bars[1:]):
                self.assertLessEqual(before["ts"], after["ts"])

    def test_data_flows_from_a_copy_to_its_digest(self):
        events, _ = self.check("hash", *self.sizes(3 * MIB))
        flows = {e["id"] for e in events if e["ph"] == "s"}
        self.assertEqual(len(flows), 4)
        self.assertEqual(flows, {e["id"] for e in events if e["ph"] == "f"})

    def test_names_that_are_no_text(self):
        names = [b'<&">\'.txt', b"quote\\\"", b"\xff\xfe latin", "grün".encode(), b"tab\tnewline\n"]
        paths = [os.path.join(os.fsencode(self.path), name) for name in names]
        for path in paths:
            with open(path, "wb") as file:
                file.write(b"x")
        self.check("hash", *map(os.fsdecode, paths))

    def test_nothing_at_all(self):
        self.check("hash", self.file("empty", b""))

    def test_many_jobs_are_drawn_small(self):
        svg = self.path / "many.svg"
        self.assertEqual(run("hash", *[self.file(f"f{i}", b"x") for i in range(400)], "--svg", svg).returncode, 0)
        self.assertLess(svg.stat().st_size, 500000)

    def test_replay(self):
        self.check("replay", TRACE)


def cs(time, seqno, context=105, ring="gfx", task="game-1"):
    return f"{task} [001] {time:.6f}: amdgpu_cs_ioctl: sched_job_id=1 timeline={ring} context={context} seqno={seqno} fence=0 num_ibs=1"


def started(time, seqno, context=105, ring="gfx"):
    return f"gfx-190 [003] {time:.6f}: amdgpu_sched_run_job: sched_job_id=1 timeline={ring} context={context} seqno={seqno} num_ibs=1"


def signaled(time, seqno, context=105, ring="gfx", driver="amd_sched"):
    return f"<idle>-0 [000] {time:.6f}: dma_fence_signaled: driver={driver} timeline={ring} context={context} seqno={seqno}"


class Replay(Base):
    def replay(self, *args, status=0):
        result = run("replay", *args)
        self.assertEqual(result.returncode, status, (result.stdout + result.stderr).decode())
        return result.stdout.decode(), result.stderr.decode()

    def test_shipped_trace(self):
        out, err = self.replay("--strict", TRACE)
        self.assertNotIn("minigpu:", err)
        text = TRACE.read_text()
        submits = len(re.findall("amdgpu_cs_ioctl:|drm_sched_job_queue:", text))
        runs = len(re.findall("amdgpu_sched_run_job:|drm_sched_job_run:", text))
        signals = len(re.findall("dma_fence_signaled:|drm_sched_job_done:", text))
        self.assertEqual(counts(out, "submits")[0], submits)
        self.assertEqual(counts(out, "runs")[0], runs)
        self.assertEqual(counts(out, "signals")[0], signals)
        self.assertEqual(counts(out, "order violations"), (0, 0))
        self.assertIn("3 rings", out)
        total = table_row(out, "total")
        self.assertEqual(total["runs"], total["jobs"])
        self.assertEqual(total["failed"], 0)

    def test_shipped_trace_is_what_the_script_makes(self):
        made = subprocess.run([sys.executable, TRACE.parent / "make-trace.py"], capture_output=True, check=True).stdout
        self.assertEqual(made, TRACE.read_bytes())

    def test_same_seed_same_report(self):
        for options in ((), ("--faults", "--seed", 7), ("--faults", "--hang-every", 9, "--lose-engine-at", 20)):
            self.assertEqual(self.replay(TRACE, *options)[0], self.replay(TRACE, *options)[0])

    def test_other_seed_other_faults_same_result(self):
        reports = {self.replay(TRACE, "--faults", "--seed", seed)[0] for seed in range(4)}
        self.assertGreater(len(reports), 1)

    def test_hanging_jobs_are_run_again(self):
        total = table_row(self.replay(TRACE, "--hang-every", 10)[0], "total")
        self.assertGreater(total["resets"], 10)
        self.assertEqual(total["failed"], 0)

    def test_lost_engine_is_replaced(self):
        for at in (1, 2, 50):
            out, _ = self.replay(TRACE, "--lose-engine-at", at)
            self.assertEqual(table_row(out, "total")["lost"], 1)
            self.assertEqual(counts(out, "order violations"), (0, 0))

    def test_in_real_time(self):
        out, _ = self.replay(TRACE, "--speed", "recorded")
        self.assertEqual(counts(out, "signals"), counts(self.replay(TRACE)[0], "signals"))

    def test_in_real_time_with_faults(self):
        self.replay(TRACE, "--speed", 4, "--hang-every", 20, "--lose-engine-at", 30)

    def test_task_names_are_anything(self):
        tasks = ("a b-1", "kworker/1:2-77", "[k] 12-3 [001]-9", "alsa-sink-HDMI -20001", "<...>-0", "x: 1.5: y-4")
        lines = [cs(1 + i / 100, i + 1, task=task) for i, task in enumerate(tasks)]
        self.assertEqual(counts(self.replay("--strict", self.trace(*lines))[0], "submits"), (6, 6))

    def test_text_of_ftrace(self):
        out, _ = self.replay("--strict", self.trace(
            "# tracer: nop", "#", "",
            "   game-1     (    1) [001] d..1.    10.000001: amdgpu_cs_ioctl: sched_job=1, timeline=gfx, context=5, seqno=1, ring_name=f, num_ibs=1",
            "   gfx-2      (-----) [001] .....    10.000123456: amdgpu_sched_run_job: sched_job=1, timeline=gfx, context=5, seqno=1, ring_name=f",
            " <idle>-0       [000] d.h2.    10.001: dma_fence_signaled: driver=drm_sched timeline=gfx context=5 seqno=1"))
        self.assertEqual(counts(out, "signals"), (1, 2))
        self.assertIn("122 us", out)
        self.assertIn("877 us", out)

    def test_events_of_linux_6_17(self):
        out, _ = self.replay("--strict", self.trace(
            "app-9 [006] 2664.817937804: drm_sched_job_queue: dev=0000:04:00.0, fence=401:1 ring=gfx_0.0.0, job count:0, hw job count:0, client_id:13",
            "kworker/u64:1-9 [000] 2664.817945719: drm_sched_job_run: dev=0000:04:00.0, fence=401:1, ring=gfx_0.0.0, job count:0, hw job count:1, client_id:13",
            "app-9 [006] 2664.817950: drm_sched_job_add_dep: fence=403:1 depends on fence=401:1",
            "app-9 [006] 2664.817951: drm_sched_job_queue: dev=0000:04:00.0, fence=403:1, ring=sdma0, job count:0, hw job count:0, client_id:13",
            "app-9 [006] 2664.817952: drm_sched_job_unschedulable: fence=403:1 depends on unsignalled fence=401:1",
            "<idle>-0 [005] 2664.818155405: drm_sched_job_done: fence=401:1 signaled"))
        self.assertEqual(counts(out, "submits"), (2, 2))
        self.assertEqual(counts(out, "runs"), (1, 2))
        self.assertIn("7.92 us", out)
        self.assertEqual(table_row(out, "sdma0")["runs"], 1)

    def test_dependencies_in_a_circle_end(self):
        queue = "app-9 [006] {0}: drm_sched_job_queue: dev=d, fence={1}:1, ring={2}, job count:0, hw job count:0, client_id:1"
        depends = "app-9 [006] 0.9: drm_sched_job_add_dep: fence={0}:1 depends on fence={1}:1"
        self.replay(self.trace(depends.format(3, 5), depends.format(5, 3), depends.format(3, 3), queue.format("1.0", 3, "a"), queue.format("1.1", 5, "b")))

    def test_dependencies_on_one_context_are_merged(self):
        depends = "app-9 [006] 1.5: drm_sched_job_add_dep: fence=5:1 depends on fence={}"
        out, _ = self.replay("--strict", self.trace(
            cs(1.0, 1), cs(1.1, 2), cs(1.2, 3), cs(1.3, 7, 9, "sdma0"),
            *[depends.format(fence) for fence in ("105:1", "105:2", "105:3", "9:7")], cs(1.6, 1, 5, "comp"),
            started(2.0, 1), started(2.1, 2), started(2.2, 3), started(2.3, 7, 9, "sdma0"), started(2.4, 1, 5, "comp")))
        self.assertIn("jobs depend on 9 fences, of which merging leaves 7", out)

    def test_dependency_that_has_signaled_is_not_waited_for(self):
        depends = "app-9 [006] 1.5: drm_sched_job_add_dep: fence=5:1 depends on fence=105:1"
        out, _ = self.replay("--strict", self.trace(cs(1.0, 1), signaled(1.1, 1), depends, cs(1.6, 1, 5, "comp")))
        self.assertIn("jobs depend on 1 fences, of which merging leaves 0", out)

    def test_context_that_changes_rings_keeps_its_order(self):
        timeline = self.path / "out.json"
        lines = [cs(3 + i / 1000, i + 1, ring=("gfx", "comp", "sdma0")[i % 3]) for i in range(60)]
        for context, ring, took in ((7, "gfx", 0.03), (8, "comp", 0.001), (9, "sdma0", 0.005)):  # how long jobs without a run take
            lines += [cs(1, 1, context, ring), started(1.1, 1, context, ring), signaled(1.1 + took, 1, context)]
        for options in ((), ("--faults", "--hang-every", 7, "--lose-engine-at", 5)):
            out, _ = self.replay("--strict", *options, "--trace", timeline, self.trace(*lines))
            self.assertEqual(counts(out, "order violations"), (0, 0))
            bars = [e for e in json.loads(timeline.read_bytes())["traceEvents"] if e["ph"] == "X" and "context 105 " in e["name"]]
            bars.sort(key=lambda bar: bar["ts"])
            self.assertEqual([int(b["name"].split("#")[1]) for b in bars if b["args"]["result"] == "done"], list(range(1, 61)))
            for before, after in zip(bars, bars[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 0.002)

    def test_context_zero_belongs_to_several_rings(self):
        out, _ = self.replay(self.trace(
            signaled(1.0, 500, 0, "gfx", "amdgpu"), signaled(1.1, 7, 0, "sdma0", "amdgpu"), signaled(1.2, 501, 0, "gfx", "amdgpu")))
        self.assertEqual(counts(out, "contexts"), (2, 2))

    def test_jobs_that_the_recording_shows_in_part(self):
        out, _ = self.replay(self.trace(
            signaled(0.9, 7), started(1.0, 8), signaled(1.1, 8), cs(1.2, 9), signaled(1.4, 9), cs(1.5, 10), started(1.6, 10), cs(1.7, 11)))
        self.assertEqual(counts(out, "submits"), (3, 5))
        self.assertEqual(counts(out, "signals")[1], 10)

    def test_unknown_events_are_counted(self):
        out, _ = self.replay("--strict", self.trace(cs(1, 1), "x-0 [001] 1.100000: drm_vblank_event: crtc=1 seq=540828"))
        self.assertIn("1 event of other kinds, 0 malformed lines", out)

    def test_malformed_lines_are_named_and_passed_over(self):
        bad = (
            ("no trace at all", "expected task-pid [cpu] seconds.fraction: event: fields"),
            ("game-1 [001] yesterday: amdgpu_cs_ioctl: timeline=gfx", "expected a time, as in 630659.133156:"),
            ("game-1 [001] 1.000000: amdgpu cs ioctl", "expected the name of an event and ':'"),
            ("game-1 [001] 1.000000: amdgpu_cs_ioctl: timeline=gfx seqno=1", "expected context=<number>"),
            ("game-1 [001] 1.000000: amdgpu_cs_ioctl: timeline=gfx context=x seqno=1", "expected context=<number>"),
            ("game-1 [001] 1.000000: amdgpu_cs_ioctl: timeline=gfx context=1", "expected seqno=<number>"),
            ("game-1 [001] 1.000000: amdgpu_cs_ioctl: timeline=gfx context=1 seqno=99999999999999999999999", "expected seqno=<number>"),
            ("game-1 [001] 1.000000: dma_fence_signaled: timeline=gfx context=1 seqno=1", "expected driver=<name>"),
            ("game-1 [001] 1.000000: drm_sched_job_run: dev=d, fence=7, ring=gfx", "expected fence=<context>:<seqno>"),
            ("game-1 [001] 1.000000: drm_sched_job_run: dev=d, fence=7:1", "expected ring=<name>"),
        )
        trace = self.trace(cs(1, 1), *[line for line, _ in bad])
        out, err = self.replay(trace)
        for number, (_, message) in enumerate(bad, 2):
            self.assertIn(f"{trace}:{number}: {message}", err)
        self.assertIn(f"{len(bad)} malformed lines", out)

    def test_line_with_a_nul_byte_is_malformed(self):
        trace = self.trace(cs(1, 1), "game-1 [001] 1.000000: drm_sched_job_done: fence=1:1\0", "\0")
        out, err = self.replay(trace)
        for number in (2, 3):
            self.assertIn(f"{trace}:{number}: expected text, not a NUL byte", err)
        self.assertIn("2 malformed lines", out)

    def test_strict_stops_at_the_first_malformed_line(self):
        trace = self.trace(cs(1, 1), "what is this", "and this")
        out, err = self.replay("--strict", trace, status=1)
        self.assertEqual(out, "")
        self.assertIn(f"{trace}:2: expected", err)
        self.assertNotIn(":3:", err)

    def test_thousands_of_malformed_lines_are_few_messages(self):
        out, err = self.replay(self.trace(cs(1, 1), *["garbage"] * 5000))
        self.assertLess(len(err.splitlines()), 20)
        self.assertIn("5000 malformed lines", out)

    def violates(self, message, *lines):
        trace = self.trace(*lines)
        out, err = self.replay(trace, status=1)
        self.assertIn(message, err)
        self.assertEqual(counts(out, "order violations")[0], 1, out)
        self.assertEqual(counts(out, "order violations")[1], 0, out)

    def test_signals_out_of_order_are_a_violation(self):
        self.violates(":6: context 105: seqno 1 signals after 2",
                      cs(1.0, 1), cs(1.1, 2), started(1.2, 1), started(1.3, 2), signaled(1.4, 2), signaled(1.5, 1))

    def test_signal_before_the_run_is_a_violation(self):
        self.violates("seqno 1: signals before it runs", cs(1.0, 1), signaled(1.2, 1), started(1.3, 1))

    def test_run_before_the_submission_is_a_violation(self):
        self.violates("seqno 1: runs before it is submitted", started(1.0, 1), cs(1.1, 1), signaled(1.2, 1))

    def test_signal_twice_is_a_violation(self):
        self.violates("seqno 1 signals after 1", cs(1.0, 1), started(1.1, 1), signaled(1.2, 1), signaled(1.3, 1))

    def test_submission_out_of_order_is_a_violation(self):
        self.violates("seqno 2: is submitted before the one before it", cs(1.0, 2), cs(1.1, 1))

    def test_hardware_fences_out_of_order_are_a_violation(self):
        self.violates("context 0: seqno 6 signals after 7", signaled(1.0, 7, 0, "gfx", "amdgpu"), signaled(1.1, 6, 0, "gfx", "amdgpu"))

    def test_trace_without_anything_to_replay(self):
        for trace in (self.file("empty", b""), self.trace("x-0 [001] 1.100000: drm_vblank_event: crtc=1"), self.file("binary", noise(70000, 1))):
            _, err = self.replay(trace, status=1)
            self.assertIn(f"{trace}: no events of GPU jobs or fences", err)

    def test_trace_that_cannot_be_read(self):
        self.assertIn("No such file", self.replay(self.path / "nowhere", status=1)[1])
        self.assertIn("Is a directory", self.replay(self.path, status=1)[1])


class Layout(Base):
    def layout(self, *lines, status=0):
        path = self.file("made.csv", "".join(line + "\n" for line in lines).encode())
        result = run("layout", path)
        self.assertEqual(result.returncode, status, (result.stdout + result.stderr).decode())
        return result.stdout.decode(), result.stderr.decode(), path

    def wrong(self, message, *lines):
        out, err, path = self.layout(*lines, status=1)
        self.assertIn(f"{path}:{message}", err)
        self.assertEqual(out, "")
        return err

    def answers(self, out):
        return tuple(map(int, re.search(r"^(\d+) answers checked against the list, (\d+) wrong$", out, re.M).groups()))

    def test_shipped_layout(self):
        result = run("layout", LAYOUT)
        out = result.stdout.decode()
        self.assertEqual(result.returncode, 0, out + result.stderr.decode())
        self.assertIn("18 buffers, 7364608 bytes", out)
        self.assertIn("8 gaps, 2142228480 bytes", out)
        self.assertIn("0x000180000000 - 0x0001801fffff   2.00 MiB    2 buffers video in, ...", out)
        self.assertEqual(self.answers(out)[1], 0)

    def test_map_shows_what_is_where(self):
        out, _, _ = self.layout("iova,size,name", "0x10000,8192,a", "0x13000,4096,b", "0x400000,4096,")
        self.assertIn("0x000000000000 ................##.#............................................\n", out)
        self.assertIn("0x000000400000 #...............................................................\n", out)
        self.assertIn("3.75 MiB without a mapping", out)
        self.assertIn("3 buffers, 16384 bytes (16.0 KiB), from 0x10000 to 0x400fff", out)
        self.assertIn("2 gaps", out)

    def test_map_of_wide_gaps_and_large_buffers(self):
        out, _, _ = self.layout("iova,size", "0x0,4096", "0x100000000000,1099511627776", "0xfffffffffffff000,4096")
        self.assertIn("3 buffers, 1099511635968 bytes", out)
        self.assertLess(len(out.splitlines()), 60)
        self.assertEqual(self.answers(out)[1], 0)

    def test_buffer_that_is_everything(self):
        out, _, _ = self.layout("iova,size", "0x0,9223372036854775808", "9223372036854775808,9223372036854771712")
        self.assertIn("0 gaps", out)
        self.assertEqual(self.answers(out)[1], 0)

    def test_many_buffers(self):
        lines = [f"{i * 12288 + (i % 3) * 4096:#x},4096,b{i}" for i in range(3000)]
        out, _, _ = self.layout("iova,size,name", *reversed(lines))
        self.assertIn("3000 buffers, 12288000 bytes", out)
        checked, wrong = self.answers(out)
        self.assertGreater(checked, 3000 * 12)
        self.assertEqual(wrong, 0)

    def test_lines_may_end_as_they_do_elsewhere(self):
        path = self.file("dos.csv", b"iova,size,name\r\n0x1000,4096,a\r\n\r\n8192,4096")
        result = run("layout", path)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn(b"2 buffers, 8192 bytes", result.stdout)

    def test_name_goes_to_the_end_of_its_line(self):
        path = self.file("returned.csv", b"iova,size,name\n0x1000,4096,a\rb,c\r\n")
        result = run("layout", path)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn(b"a\rb,c", result.stdout)

    def test_mistakes_are_named_with_their_line(self):
        header = "iova,size,name"
        for lines, message in (
                ((), "1: expected the header iova,size or iova,size,name, not the end of the file"),
                (("0x1000,4096,",), "1: expected the header iova,size or iova,size,name, not '0x1000,4096,'"),
                ((header,), "2: expected a buffer, as in 0x10372f000,4096, not the end of the file"),
                ((header, "here,4096,"), "2: expected an iova and ',', as in 0x10372f000,4096, not 'here,4096,'"),
                ((header, "0x1000 4096"), "2: expected an iova and ','"),
                ((header, "-4096,4096"), "2: expected an iova and ','"),
                ((header, "0x1000"), "2: expected an iova and ','"),
                ((header, "0x99999999999999999,4096,"), "2: expected an iova and ','"),
                ((header, "0x1000,"), "2: expected a size behind the iova"),
                ((header, "0x1000,4096 bytes"), "2: expected a size behind the iova"),
                ((header, "0x1000,4096,", "0x2010,4096,"), "3: expected an iova that is a multiple of 4096, not 0x2010"),
                ((header, "0x1000,4096,", "0x2000,100,"), "3: expected a size that is a multiple of 4096 and not 0, not 100"),
                ((header, "0x1000,0,"), "2: expected a size that is a multiple of 4096 and not 0, not 0"),
                ((header, "0xfffffffffffff000,8192,"), "2: expected a range within 64 bits"),
                ((header, "0x1000,4096,a", "0x2000,4096,b\0c"), "3: expected text, not a NUL byte"),
                ((header, "0x1000,8192,", "0x9000,4096,", "0x2000,4096,"),
                 "4: expected a range of its own, not one with 0x2000, which belongs to line 2"),
                ((header, "0x2000,4096,", "0x1000,65536,", "0x8000,4096,"),
                 "4: expected a range of its own, not one with 0x8000, which belongs to line 3"),
        ):
            self.wrong(message, *lines)

    def test_thousands_of_mistakes_are_few_messages(self):
        err = self.wrong("2: expected", "iova,size", *["garbage"] * 5000)
        self.assertLess(len(err.splitlines()), 20)

    def test_file_that_cannot_be_read(self):
        for path, message in ((self.path / "nowhere", "No such file"), (self.path, "Is a directory")):
            result = run("layout", path)
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"{path}: {message}", result.stderr.decode())


class Demo(Base):
    """scripts/demo with this program instead of one that it builds, and with others."""

    def demo(self, *args, program=None):
        """Run in the directory of the files, which is not the repository's."""
        if not program:
            program = self.program(shlex.join(minigpu) + ' "$@"')
        result = subprocess.run([SOURCE / "scripts/demo", *map(str, args)], capture_output=True, timeout=PATIENCE, check=False, cwd=self.path,
                                env={**os.environ, "MINIGPU": str(program), "OUT": str(self.path / "out")})
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    def program(self, text):
        path = self.file("program", f"#!/bin/sh\n{text}\n".encode())
        path.chmod(0o755)
        return path

    def test_digests_are_the_same_in_whichever_order(self):
        # Names that are parts of each other, that are escaped, and that look like options.
        names = ("ab", "a", "a b", " a", "b\n  a", "back\\slash", "--vram", "x]y")
        for name in names:
            self.file(name, name.encode())
        for order in (names, names[::-1]):
            status, out, err = self.demo("--seed", 3, "--", *order)
            self.assertEqual((status, out.count("  the same\n"), out.count("DIFFERENT")), (0, len(names), 0), out + err)
            self.assertIn(f"demo: {len(names)} of {len(names)} digests are the same", out.splitlines()[-1])
            self.assertIn("all is well", out.splitlines()[-1])
        self.assertIn(f"{len(names)} files, {sum(map(len, names))} B in all", out)
        self.assertTrue((self.path / "out/hash.svg").stat().st_size)

    def test_another_digest_is_found(self):
        self.file("a", b"1")
        self.file("b", b"2")
        wrong = self.program(f'case "$*" in *" hash "*) printf "%064d  %s\\n" 0 {self.path}/a; sha256sum {self.path}/b ;;\n'
                             f'*) {shlex.join(minigpu)} "$@" ;;\nesac')
        status, out, err = self.demo("a", "b", program=wrong)
        self.assertEqual((status, out.count("  the same\n"), out.count("  DIFFERENT\n")), (1, 1, 1), out + err)
        self.assertIn("demo: 1 of 2 digests are the same; something above is not as it should be", err)
        self.assertNotIn("all is well", out)

    def test_digest_that_minigpu_does_not_have_is_missed(self):
        self.file("a", b"1")
        status, out, err = self.demo("a", program=self.program(f'case "$*" in *" hash "*) exit 1 ;; *) {shlex.join(minigpu)} "$@" ;; esac'))
        self.assertEqual((status, out.count("  MISSING\n")), (1, 1), out + err)
        self.assertIn("demo: 0 of 1 digest is the same; something", err)

    def test_file_that_cannot_be_read_is_named(self):
        self.file("a", b"1")
        status, out, err = self.demo("a", "nowhere")
        self.assertEqual(status, 1)
        self.assertRegex(out, r"sha256sum  could not read it: .*/nowhere: No such file")
        self.assertIn("demo: 1 of 2 digests are the same", err)

    def test_wrong_options_end_it_at_once_and_leave_no_pictures(self):
        self.file("a", b"1")
        pictures = [self.path / "out" / name for name in ("hash.svg", "hash.json", "hash.sha256", "three-rings.svg", "three-rings.json")]
        for args, message in (
                (("-x", "a"), "demo: there is no option '-x'"),
                (("--list",), "demo: there is no option '--list'"),
                (("--repeat", "3"), "demo: --repeat is not for the demo"),
                (("--minutes=3", "a"), "demo: --minutes is not for the demo"),
                (("--svg", "x"), "demo: timeline and picture go to"),
                (("a", "--vram"), "demo: --vram wants a value"),
                (("-",), "demo: standard input can be read only once"),
                (("--vram", "1x", "a"), "minigpu: --vram: expected a size"),
                (("--chaos=some", "a"), "minigpu: --chaos: expected"),
                (("--speed", "fast", "a"), "minigpu: --speed: expected"),
        ):
            self.demo("a")
            status, out, err = self.demo(*args)
            self.assertEqual(status, 2, args)
            self.assertIn(message, err)
            self.assertNotIn("DIFFERENT", out)
            self.assertNotIn("picture ", out)
            if message.startswith("minigpu: --vram"):
                self.assertEqual([str(p) for p in pictures if p.exists() and p.stat().st_size], [])

    def test_help(self):
        for option in ("--help", "-h"):
            status, out, err = self.demo(option)
            self.assertEqual((status, err), (0, ""))
            self.assertIn("--repeat", out)


class Shared(Base):
    """Real recordings, which are not part of the repository."""

    def test_layout_of_230_buffers(self):
        result = run("layout", SHARED_LAYOUT)
        out = result.stdout.decode()
        self.assertEqual(result.returncode, 0, out + result.stderr.decode())
        self.assertIn("230 buffers, 3219456 bytes", out)
        self.assertIn("91 gaps", out)
        self.assertRegex(out, r"(?m)^\d{4,} answers checked against the list, 0 wrong$")

    def test_recording_of_2017(self):
        result = run("replay", "--strict", SHARED_TRACE)
        out = result.stdout.decode()
        self.assertEqual(result.returncode, 0, out + result.stderr.decode())
        self.assertEqual(counts(out, "submits"), (755, 783))
        self.assertEqual(counts(out, "runs"), (693, 783))
        self.assertEqual(counts(out, "signals"), (1976, 2 * 783 + 642))
        self.assertEqual(counts(out, "contexts"), (9, 10))
        self.assertEqual(counts(out, "order violations"), (0, 0))
        self.assertIn("250 events of other kinds, 0 malformed lines", out)

    def test_recording_of_2017_with_faults(self):
        result = run("replay", SHARED_TRACE, "--faults", "--hang-every", 50, "--lose-engine-at", 300)
        self.assertEqual(result.returncode, 0, (result.stdout + result.stderr).decode())

    def test_recording_of_2017_in_real_time(self):
        result = run("replay", SHARED_TRACE, "--speed", 10)
        self.assertEqual(result.returncode, 0, (result.stdout + result.stderr).decode())


def main():
    group = sys.argv[2]
    minigpu[:] = [*shlex.split(os.environ.get("MESON_EXE_WRAPPER", "")), os.path.abspath(sys.argv[1])]
    for path in (SHARED_TRACE, SHARED_LAYOUT):
        if group == "Shared" and not path.exists():
            print(f"skipped: {os.path.relpath(path, SOURCE)} is not here")
            return 77
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(globals()[group])
    return not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
