"""Tests of the checks in this folder: each must find what it is there for, and nothing else."""

import ast
import inspect
import os
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import check_abi
import check_adapters
import check_calls
import check_docstrings
import check_floors
import check_header
import check_knots
import check_names
import check_outputs
import check_statics
import check_stub
import check_style
import check_words
import common
import debian_source
import run_ctests


class Common(unittest.TestCase):
    def test_comments_and_strings_are_blanked_in_place(self):
        text = 'a /* "x */ b "q\\" //" c // d\n\'"\' e'
        code = common.code_only(text)
        self.assertEqual([len(x) for x in text.split("\n")], [len(x) for x in code.split("\n")])
        self.assertEqual(code.split(), ["a", "b", "c", "e"])

    def test_commented_out_includes_do_not_count(self):
        text = '/* #include <a.h> */\n#include "b.h"\n  #  include <c.h>\n// #include "d.h"\n'
        self.assertEqual(list(common.includes(text)), [(2, False, "b.h"), (3, True, "c.h")])


try:
    RANGES = check_adapters.ranges()
except ImportError:
    RANGES = None


@unittest.skipIf(RANGES is None, "hardsock is not built")
class DebianSource(unittest.TestCase):
    def test_a_make_of_others_has_its_rules_whatever_ours_was_told(self):
        with tempfile.TemporaryDirectory() as held:
            (Path(held) / "x.c").write_text("int x;\n")
            with mock.patch.dict(os.environ, {"MAKEFLAGS": "r", "MAKELEVEL": "1"}):
                debian_source.run(["make", "x.o", "CC=cc"], Path(held), CFLAGS="-Dx=y")
            self.assertTrue((Path(held) / "x.o").exists())


class Adapters(unittest.TestCase):
    def test_every_library_with_a_range_is_in_a_group_and_every_test_is_there(self):
        grouped = [name for group in check_adapters.GROUPS for name in group.libraries]
        self.assertEqual(sorted(grouped), sorted(RANGES))
        for group in check_adapters.GROUPS:
            for name in group.tests:
                self.assertTrue((common.ROOT / "tests/adapters" / name).exists(), name)

    def test_one_version_is_run_once(self):
        found = [
            (group.name, end) for group, end in check_adapters.runs(["httpx", "redis"], "both")
        ]
        self.assertEqual(found, [("redis", "oldest"), ("redis", "newest"), ("httpx", "newest")])

    def test_pins_are_the_table_s(self):
        (group,) = (one for one in check_adapters.GROUPS if one.name == "requests")
        oldest, newest = RANGES["urllib3"]
        self.assertIn(f"urllib3=={oldest}.*", check_adapters.pins(group, "oldest"))
        self.assertIn(f"urllib3=={newest}.*", check_adapters.pins(group, "newest"))
        self.assertIn("urllib3", check_adapters.pins(group, "latest"))

    def test_what_is_tried_goes_before_the_table(self):
        (group,) = (one for one in check_adapters.GROUPS if one.name == "requests")
        found = check_adapters.pins(group, "tried", ["urllib3==1.26.*"])
        oldest, _ = RANGES["requests"]
        self.assertEqual(found, ["urllib3==1.26.*", f"requests=={oldest}.*"])


class Header(unittest.TestCase):
    def problems(self, macro):
        """The real header with one macro more."""
        text = (common.ROOT / check_header.HEADER).read_text()
        constants, calls = check_header.macros(text)
        self.assertIn("HS_OP_INIT", calls)
        self.assertIn("HS_NEVER", constants)
        return check_header.problems(text + macro)

    def test_a_macro_that_nobody_uses_is_told(self):
        found = self.problems("#define HS_NEW(x) (x)\n")
        self.assertEqual(["HS_NEW" in one for one in found], [True])

    def test_a_function_with_an_output_parameter_needs_its_guard(self):
        text = "hs_err hs_one(int a);\nHS_API hs_err hs_two(int a,\n    int *ret_a);\n"
        self.assertEqual(len(check_header.unguarded(text, "GUARD(__wrap_hs_one, ..")), 1)
        self.assertEqual(check_header.unguarded(text, "GUARD(__wrap_hs_two, .."), [])

    def test_designated_initializers_are_no_cxx17(self):
        source = "struct s { int a, b; };\nint main() { struct s x = {.b = 1}; return x.a; }\n"
        self.assertNotEqual(check_header.compile_with("c++", "c++17", source), "")
        self.assertEqual(check_header.compile_with("c++", "c++17", "int main() {}\n"), "")


class Abi(unittest.TestCase):
    def test_every_kind_of_change_is_a_changed_line(self):
        text = (common.ROOT / check_abi.HEADER).read_text()
        kept = check_abi.table(text)
        self.assertEqual(check_abi.compare(kept, kept), [])
        rows = [
            ("int32_t hs_err", "int64_t hs_err"),
            ("hs_conn_fileno(struct hs_conn *c)", "hs_conn_fileno(const struct hs_conn *c)"),
            ("    int linger_s;", "    int linger_ms;"),
            ("size_t max_idle; ", "uint16_t max_idle; "),
            ("    bool stepping;", "    bool more, stepping;"),
            ("    HS_ATTEMPT_SOCKET,", "    HS_ATTEMPT_SOCKET = 7,"),
            ("RESET, BROKEN, 2", "RESET, BROKEN, 9"),
        ]
        for old, new in rows:
            with self.subTest(old=old):
                self.assertIn(old, text)
                changed = text.replace(old, new)
                self.assertNotEqual(check_abi.compare(kept, check_abi.table(changed)), [])

    def test_what_is_exported_is_what_is_declared(self):
        self.assertEqual(check_abi.symbols({"hs_a"}, {"hs_a"}), [])
        self.assertEqual(len(check_abi.symbols({"hs_a", "hs_b"}, {"hs_a", "hs_c"})), 2)

    def test_a_function_keeps_the_version_it_came_with(self):
        header = '#define HS_VERSION "0.2.0.dev1"\n#define HS_ABI 0\n'
        calls = ["HS_API int hs_new(void);\n", "HS_API int hs_old(void);\n"]
        first = "libhardsock.so.0 libhardsock0 #MINVER#\n* Build-Depends-Package: libhardsock-dev\n"
        kept = f"{first} hs_gone@Base 0.1.0~\n hs_old@Base 0.1.0~\n"
        made = check_abi.since(header + "".join(calls), kept)
        self.assertEqual(made, f"{first} hs_new@Base 0.2.0~\n hs_old@Base 0.1.0~\n")
        # Another interface is another package, which has all of its functions from the start.
        other = check_abi.since(header.replace("ABI 0", "ABI 1") + calls[1], kept)
        self.assertIn("libhardsock.so.1 libhardsock1 #MINVER#\n", other)
        self.assertIn(" hs_old@Base 0.2.0~\n", other)


class Floors(unittest.TestCase):
    BASE = {  # noqa: RUF012
        "csrc/include/hardsock.h": "",
        "csrc/base/err.h": "",
        "csrc/cancel/wait.h": '#include "../base/err.h"\n',
        "csrc/binding/base/run.h": '#include "hardsock.h"\n#include <Python.h>\n',
    }

    def problems(self, **more):
        extra = {k.replace("__", "/") + ".c": v for k, v in more.items()}
        return check_floors.check({**self.BASE, **extra})

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.problems(csrc__stream__tcp='#include "cancel/wait.h"\n'), [])

    def test_a_higher_floor_is_refused(self):
        self.assertEqual(len(self.problems(csrc__base__err='#include "../cancel/wait.h"\n')), 1)

    def test_the_binding_sees_no_inner_header(self):
        self.assertEqual(len(self.problems(csrc__binding__run='#include "../base/err.h"\n')), 1)
        self.assertEqual(len(self.problems(csrc__binding__run='#include "base/err.h"\n')), 1)
        self.assertEqual(self.problems(csrc__binding__run='#include "run.h"\n'), [])

    def test_python_and_openssl_have_their_places(self):
        self.assertEqual(len(self.problems(csrc__base__err="#include <Python.h>\n")), 1)
        self.assertEqual(len(self.problems(csrc__base__err='#include "Python.h"\n')), 1)
        self.assertEqual(len(self.problems(csrc__pool__pool="#include <openssl/ssl.h>\n")), 1)
        self.assertEqual(self.problems(csrc__stream__tls_config="#include <openssl/ssl.h>\n"), [])

    def test_a_circle_on_one_floor_is_found(self):
        tree = {"csrc/base/a.h": '#include "b.h"\n', "csrc/base/b.h": '#include "a.h"\n'}
        self.assertIn("circle", check_floors.check(tree)[0])


class StaticNames(unittest.TestCase):
    def test_two_files_may_not_have_a_static_of_one_name(self):
        one = "static int\nstep(int a)\n{\n}\n"
        for other, problems in (
            (one, 1),
            (one.replace("static ", ""), 0),
            (one.replace("step", "job_step"), 0),
            ("/* static int\nstep(void) */\n", 0),
            ("static int step_of = 1;\nint\nstep(int a)\n{\n}\n", 0),
        ):
            with self.subTest(other=other):
                tree = {"csrc/base/a.c": one, "csrc/pool/b.c": other}
                self.assertEqual(len(check_statics.check(tree)), problems)


class Knots(unittest.TestCase):
    TREE = {  # noqa: RUF012
        "csrc/base/a.h": "void hs_a(void);\n",
        "csrc/base/a.c": '#include "a.h"\n#include "b.h"\nvoid\nhs_a(void)\n{\n    hs_b();\n}\n',
        "csrc/base/b.h": "void hs_b(void);\n",
        "csrc/base/b.c": '#include "b.h"\nvoid\nhs_b(void)\n{\n}\n',
        "csrc/base/c.c": "static void\nhs_b(void)\n{\n}\nvoid\nhs_c(void)\n{\n    hs_b();\n}\n",
    }

    def knots(self, old="", new=""):
        tree = dict(self.TREE)
        if old:
            tree["csrc/base/b.c"] = tree["csrc/base/b.c"].replace(old, new)
        return check_knots.knots(check_knots.graph_of(tree))

    def test_calls_and_includes_tie_a_knot_and_names_of_statics_do_not(self):
        self.assertEqual(self.knots(), [])
        self.assertEqual(self.knots("{\n}", "{\n    hs_a();\n}"), [["a", "b"]])
        self.assertEqual(self.knots('"b.h"', '"a.h"'), [["a", "b"]])
        self.assertEqual(self.knots("{\n}", "{\n    /* hs_a() */\n}"), [])

    def test_a_knot_may_neither_grow_nor_shrink_unseen(self):
        for sizes, problems in (([3], 1), ([2], 0), ([], 1), ([2, 2], 1)):
            found = {"base": [["x"] * size for size in sizes]}
            with self.subTest(sizes=sizes):
                self.assertEqual(len(check_knots.check(found, {"base": [2]})), problems)


class Names(unittest.TestCase):
    def name(self, doc: str, *parameters: str, is_function: bool = True) -> check_names.Name:
        return check_names.Name("hardsock", "fetch", doc, doc, [*parameters], False, is_function)

    def test_rules(self) -> None:
        raises = "Fetch it within so many seconds.\n\nRaises:\n    DeadlineExceeded: Too late."
        rows = [
            # docstring, parameters, pages, how many problems
            (raises, ("timeout",), "`fetch`", 0),
            (raises, ("timeout",), "`fetched`", 1),  # on no page
            ("Fetch.", (), "`fetch`", 1),  # too short
            ("Fetch it from the peer, in time.", ("timeout",), "`fetch`", 2),  # no unit, no error
            ("Fetch it, as ``hardsock.connect`` does.", ("timeout",), "`fetch`", 0),
            ("Fetch it from the peer, in time.", ("idle_timeout",), "`fetch`", 1),
        ]
        for doc, parameters, pages, problems in rows:
            with self.subTest(doc=doc, pages=pages):
                found = check_names.problems_of(self.name(doc, *parameters), pages)
                self.assertEqual(len(found), problems)

    def test_a_module_is_public_unless_its_folder_is_ours(self) -> None:
        found = check_names.modules()
        self.assertEqual(found[0], "hardsock")
        self.assertIn("hardsock.adapters.redis", found)
        self.assertIn("hardsock.lab.servers", found)
        self.assertNotIn("hardsock.pool.pool", found)
        self.assertNotIn("hardsock.otel.names", found)
        self.assertFalse([one for one in found if "._" in one])


class Docstrings(unittest.TestCase):
    SAFE = (
        "A line to somebody. Any thread may call it; close() ends its calls: Closed, a SocketError."
    )

    def problems(self, value: object, context: str = "") -> int:
        entry = check_docstrings.Entry("hardsock.f", inspect.getdoc(value) or "", context, value)
        return len(list(check_docstrings.problems_of(entry)))

    def test_what_waits_says_what_it_raises_leaves_behind_and_is_ended_by(self):
        def bare(timeout=None):
            """Fetch the answer from it."""

        def whole(timeout=None):
            """Fetch the answer. Raises DeadlineExceeded; what came stays buffered. By token, too."""

        def refers(timeout=None):
            """Fetch the answer, as ``hardsock.connect``."""

        def quick():
            """Fetch the answer from it."""

        self.assertEqual(self.problems(bare), 3)
        self.assertEqual(self.problems(whole), 0)
        self.assertEqual(self.problems(refers), 0)
        self.assertEqual(self.problems(quick), 0)
        self.assertEqual(self.problems(bare, self.SAFE + " What came is kept."), 0)

    def test_an_exception_that_the_body_raises_is_named(self):
        def silent(n):
            """Divide it by the number n."""
            if n < 0:
                raise ValueError(n)

            def inner():
                raise LookupError(n)  # somebody else's call

            return inner

        entry = check_docstrings.Entry("hardsock.f", inspect.getdoc(silent) or "", "", silent)
        self.assertEqual(
            list(check_docstrings.problems_of(entry)),
            ["hardsock.f: raises ValueError, and does not say so"],
        )
        self.assertEqual(self.problems(silent, "ValueError: n is negative."), 0)

    def test_a_time_says_of_which_clock(self):
        def last(self) -> "float | None":
            """When it was."""

        for doc, problems in (("When it was last read.", 1), ("Seconds since it was read.", 0)):
            entry = check_docstrings.Entry("hardsock.C.last", doc, "", last, is_read=True)
            self.assertEqual(len(list(check_docstrings.problems_of(entry))), problems)

    def test_a_class_says_who_may_use_it(self):
        for doc, problems in (("A line to somebody else.", 1), (self.SAFE, 0)):
            entry = check_docstrings.Entry("hardsock.Line", doc, "", object, is_class=True)
            self.assertEqual(len(list(check_docstrings.problems_of(entry))), problems)


class Calls(unittest.TestCase):
    def test_rules(self):
        rows = [
            # path, code, is it refused?
            ("csrc/cancel/waker.c", "n = hs_sys_ppoll(f, 2, &t, NULL);", False),
            ("csrc/cancel/waker.c", "n = ppoll(f, 2, &t, NULL);", True),
            ("csrc/stream/tcp.c", "n = hs_sys_ppoll(f, 2, &t, NULL);", True),
            ("csrc/stream/tcp.c", "n = recv(fd, b, 1, 0);", True),
            ("csrc/stream/tcp.c", "n = hs_sys_recv(fd, b, 1, 0);", False),
            ("csrc/stream/tcp.c", "n = layer.send(fd, b, 1, 0);", False),
            ("csrc/base/sys.c", "n = recv(fd, b, 1, 0);", False),
            ("csrc/pool/pool.c", "p = calloc(1, n);", True),
            ("csrc/binding/conn.c", "p = calloc(1, n);", False),
            ("csrc/stream/tls.c", "n = SSL_read_ex(s, b, 1, &n);", True),
            ("csrc/connect/resolve.c", "n = getaddrinfo(h, 0, &x, &y);", True),
            ("csrc/stream/tcp.c", "n = ppoll(f, 2, &t, NULL);", True),
            ("csrc/cancel/waker.c", "n = poll(f, 2, 5);", True),
            ("csrc/stream/tcp.c", "layer->poll(f);", False),
            ("csrc/stream/tcp.c", "hs_conn_poll(f);", False),
            ("csrc/stream/tcp.c", "/* never poll() */ x();", False),
            ("csrc/stream/tcp.c", 'set("poll(");', False),
            ("csrc/connect/race.c", "hs_sys_epoll_wait(e, v, 8, 0);", False),
            ("csrc/connect/race.c", "epoll_wait(e, v, 8, 0);", True),
            ("csrc/pool/pool.c", "hs_sys_epoll_wait(e, v, 8, 0);", True),
            ("csrc/pool/pool.c", "epoll_wait(e, v, 8, 0);", True),
            ("csrc/pool/pool.c", "pthread_cond_t c;", True),
            ("csrc/pool/pool.c", "n = recvmmsg(fd, v, 8, 0, NULL);", True),  # in neither list
            ("csrc/pool/pool.c", "n = hs_recvmmsg(fd, v, 8, 0, NULL);", False),
            ("csrc/pool/pool.c", "(void)timerfd_settime(fd, 0, &w, NULL);", True),
            ("csrc/base/own_fd.c", "n = write(fd, b, 8);", False),
            ("csrc/pool/pool.c", "n = write(fd, b, 8);", True),
            ("csrc/stream/tls_load.c", 'b = BIO_new_file(path, "rb");', True),
            ("csrc/pool/pool.c", "pthread_mutex_lock(&m);", True),
            ("csrc/base/lock.c", "pthread_mutex_lock(&m);", False),
            ("csrc/pool/pool.c", "clock_gettime(CLOCK_MONOTONIC, &t);", True),
            ("csrc/base/time.c", "clock_gettime(CLOCK_MONOTONIC, &t);", False),
            ("csrc/binding/base/detach.c", "Py_BEGIN_ALLOW_THREADS", False),
            ("csrc/binding/conn.c", "Py_BEGIN_ALLOW_THREADS", True),
            ("csrc/binding/conn.c", "t = PyEval_SaveThread();", True),
            ("csrc/binding/conn.c", "list = PyList_New(n);", True),
            ("csrc/binding/conn.c", "list = PyList_New(0);", False),
            ("csrc/base/err.c", "snprintf(b, 4, x);", False),
            ("csrc/base/err.c", "fprintf(stderr, x);", True),
            ("csrc/base/err.c", "printf(x);", True),
            ("csrc/base/err.c", "assert(x);", True),
            ("csrc/base/err.c", "int my_stdout;", False),
            ("csrc/base/err.c", "int stdout_fd;", False),
            ("csrc/base/err.c", "static_assert(x);", False),
            ("csrc/base/err.c", "HS_ASSERT(x);", False),
            ("csrc/binding/a.c", 'PyErr_Format(x, "a %lx", y);', True),
            ("csrc/binding/a.c", 'PyErr_Format(x, "a %zd, "\n"%.3f", y);', True),
            ("csrc/binding/a.c", 'PyErr_Format(x, "%.100s %zd %R 0x%x %%", y);', False),
            ("csrc/binding/a.c", 'snprintf(b, 4, "%lx", y);', False),
            ("csrc/stream/roll.c", "struct tcp_info info;", True),
            ("csrc/stream/roll.c", "struct tcp_info info = {0};", False),
        ]
        for path, code, refused in rows:
            with self.subTest(path=path, code=code):
                self.assertEqual(refused, bool(check_calls.check(path, code + "\n")))


class Style(unittest.TestCase):
    HEADER = "/* x.c: owns x.\n *\n * More.\n */\n"

    def problems(self, body):
        return check_style.check("csrc/base/x.c", self.HEADER + body)

    def test_a_clean_file_passes(self):
        self.assertEqual(self.problems("/* ---- Time ---- */\nint x;\n"), [])

    def test_the_header_comment_is_asked_for(self):
        self.assertEqual(len(check_style.check("x.c", "int x;\n")), 1)
        self.assertEqual(len(check_style.check("x.c", "/* short */\nint x;\n")), 1)

    def test_lines(self):
        for bad in [
            "\tint x;\n",
            "int x; \n",
            "x" * 101 + "\n",
            "// ------ a\n",
            "/* ==== */\n",
            "/*******\n*/\n",
        ]:
            with self.subTest(bad=bad):
                self.assertEqual(len(self.problems(bad)), 1)

    def test_notes_need_an_issue(self):
        word = "TO" + "DO"
        self.assertEqual(len(self.problems(f"/* {word}: later */\n")), 1)
        self.assertEqual(self.problems(f"/* {word}(#12): later */\n"), [])

    def test_long_functions_need_a_reason(self):
        body = "{\n" + "    x();\n" * 61 + "}\n"
        self.assertEqual(len(self.problems("void\nf(void)\n" + body)), 1)
        self.assertEqual(self.problems("void\nf(void)\n{\n" + "    x();\n" * 60 + "}\n"), [])
        mark = "/* NOLINTNEXTLINE(readability-function-size)"
        self.assertEqual(self.problems(f"{mark}: one flat table */\nvoid\nf(void)\n{body}"), [])
        self.assertEqual(len(self.problems(f"{mark} */\nvoid\nf(void)\n{body}")), 1)


class Words(unittest.TestCase):
    def test_paths_of_a_machine_are_found(self):
        place = "/" + "root" + "/"
        self.assertEqual(len(check_words.check("a", f"see {place}x")), 1)
        self.assertEqual(check_words.check("a", f"see docs{place}x, net{place}y"), [])

    def test_words_for_men_and_women_are_found_but_not_what_is_quoted(self):
        words = ("he", "the one who")
        for line, problems in (
            ("The one who asks", 1),
            ("then he waits.", 1),
            ('send(b"he")', 0),
            ("the header", 0),
            ("START_TEST(then_he_waits)", 1),
            ("the_header", 0),
        ):
            with self.subTest(line=line):
                self.assertEqual(len(check_words.check("docs/a.md", line, words)), problems)
        self.assertEqual(check_words.check("docs/adr/a.md", "he", words), [])


class Outputs(unittest.TestCase):
    def problems(self, *lines):
        body = "".join(f"    {line}\n" for line in lines)
        text = "static hs_err\nmake(int a, struct hs_x **ret_x)\n{\n" + body + "}\n"
        return len(check_outputs.check("csrc/a.c", text))

    def test_a_write_before_a_failure_is_found(self):
        self.assertEqual(self.problems("*ret_x = x;", "return finish(x);"), 1)
        self.assertEqual(self.problems("*ret_x = x;", "if (a)", "return HS_E_INVALID;"), 1)
        self.assertEqual(self.problems("*ret_x = x;", "rv = finish(x);", "return rv;"), 1)

    def test_a_write_that_comes_with_success_is_fine(self):
        self.assertEqual(self.problems("*ret_x = x;", "return HS_OK;"), 0)
        self.assertEqual(self.problems("if ((rv = f(x)) == HS_OK)", "*ret_x = x;", "return rv;"), 0)
        self.assertEqual(
            self.problems("if (rv != HS_OK)", "g(x);", "else", "*ret_x = x;", "return rv;"), 0
        )
        self.assertEqual(self.problems("*ret_x = x;", "rv = HS_OK;", "return rv;"), 0)


def make_module():
    class Thing:
        def __init__(self, size=3):
            """Take a size."""

        def go(self, a, /, *, timeout=None):
            """Go."""

        @property
        def name(self):
            """Say who."""

    Thing.__module__ = "m"
    module = types.ModuleType("m")
    module.Thing = Thing
    module.run = lambda a, b=1: None
    module.LIMIT = 5
    return module


class Stub(unittest.TestCase):
    GOOD = inspect.cleandoc("""
        LIMIT: int
        _Alias = int | str
        class Thing:
            def __init__(self, size: int = 3) -> None: ...
            def go(self, a: int, /, *, timeout: float | None = None) -> None: ...
            @property
            def name(self) -> str: ...
        def run(a: int, b: int = ...) -> None: ...
        """)

    def problems(self, *change):
        text = self.GOOD.replace(*change) if change else self.GOOD
        self.assertTrue(not change or text != self.GOOD)
        return check_stub.compare(ast.parse(text), make_module())

    def test_a_true_stub_passes(self):
        self.assertEqual(self.problems(), [])

    def test_every_kind_of_lie_is_found(self):
        rows = [
            ("LIMIT: int\n", ""),
            ("LIMIT: int\n", "LIMIT: int\nMORE: int\n"),
            ("size: int = 3", "size: int = 4"),
            ("size: int = 3", "size: int"),
            ("a: int, /, *", "a: int, *"),
            ("timeout:", "limit:"),
            (", *, timeout", ", timeout"),
            ("    @property\n", ""),
            ("def name", "def title"),
            ("b: int = ...", "b: int"),
            ("a: int, b", "b"),
        ]
        for change in rows:
            with self.subTest(change=change):
                self.assertGreaterEqual(len(self.problems(*change)), 1)


class RunCTests(unittest.TestCase):
    def judge(self, status, output):
        r = run_ctests.judge("x", status, output, 0.0)
        return r.passed, r.failed

    def test_reports_are_counted(self):
        line = "100%: Checks: 5, Failures: 0, Errors: 0\n"
        self.assertEqual((5, 0), self.judge(0, line))
        self.assertEqual((10, 0), self.judge(0, line + line))
        self.assertEqual((3, 2), self.judge(1, "60%: Checks: 5, Failures: 1, Errors: 1\n"))
        self.assertEqual((7, 0), self.judge(0, "7 passed, 0 failed\n"))

    def test_silence_and_crashes_are_failures(self):
        self.assertEqual((0, 1), self.judge(0, "fine\n"))
        self.assertEqual((0, 1), self.judge(-11, ""))
        self.assertEqual((0, 1), self.judge(0, "100%: Checks: 0, Failures: 0, Errors: 0\n"))
        self.assertEqual((5, 1), self.judge(66, "100%: Checks: 5, Failures: 0, Errors: 0\n"))

    def test_a_program_is_over_at_its_limit_with_all_that_it_forked(self):
        program = "import os, time\nif os.fork() == 0: os.setpgid(0, 0)\ntime.sleep(600)"
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            script.write(program)
            script.flush()
            r = run_ctests.run(script.name, [sys.executable], 1.0)
        self.assertEqual("still running after 1 s", r.complaint)


if __name__ == "__main__":
    sys.exit(0 if unittest.main(exit=False, verbosity=0).result.wasSuccessful() else 1)
