#!/usr/bin/env python3
"""Plants each kind of violation in a small tree and sees check_layers find it, and nothing in the tree without."""

import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def load():
    loader = importlib.machinery.SourceFileLoader("check_layers", str(HERE / "check_layers"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_layers", loader))
    loader.exec_module(module)
    return module


check_layers = load()

CLEAN = {
    "stator/base/CMakeLists.txt": "stator_room(NAME base STOREY ground)",
    "stator/base/README.md": "base",
    "stator/base/error.h": "#include <fmt/format.h>\n",
    "stator/base/clock.cc": '#include "stator/base/error.h"\nauto t = std::chrono::steady_clock::now();\n',
    "stator/runtime/CMakeLists.txt": "stator_room(NAME runtime STOREY first DEPS base LIBS Boost::headers)",
    "stator/runtime/README.md": "runtime",
    "stator/runtime/asio.h": "#include <boost/asio.hpp>\n",
    "stator/runtime/loop.h": '#include "stator/base/error.h"\n',
    "stator/net/CMakeLists.txt": "stator_room(NAME net STOREY first\n  DEPS base runtime  # the loop\n  TEST_DEPS codec)",
    "stator/net/README.md": "net",
    "stator/net/connection.h": '#include "stator/runtime/asio.h"\n',
    "stator/net/server.h": "#include <memory>\n",
    "stator/net/server.cc": '#include "stator/net/connection.h"\n#include "stator/runtime/asio.h"\n',
    "stator/net/server_test.cc": '#include "stator/codec/json.h"\n',
    "stator/codec/CMakeLists.txt": "stator_room(NAME codec STOREY ground DEPS base)",
    "stator/codec/README.md": "codec",
    "stator/codec/json.h": "// std::chrono::steady_clock::now() in a comment is no call\n",
    "stator/engine/CMakeLists.txt": "stator_room(NAME engine STOREY second DEPS base)",
    "stator/engine/README.md": "engine",
    "stator/engine/engine.h": "#include <string>\n",
    "stator/engine/echo/CMakeLists.txt": "stator_room(NAME engine/echo STOREY second DEPS base engine net NEEDS_LLAMA)",
    "stator/engine/echo/README.md": "echo",
    "stator/engine/echo/echo.cc": '#include "stator/engine/engine.h"\n#include "stator/net/server.h"\n',
}


class CheckLayersTest(unittest.TestCase):
    def findings(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {**CLEAN, **changes}.items():
                if text is None:
                    continue
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            return check_layers.check(root).findings

    def finds(self, changes, *parts):
        found = self.findings(changes)
        self.assertEqual(len(found), 1, found)
        for part in parts:
            self.assertIn(part, found[0])

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(self.findings({}), [])

    def test_include_a_storey_up(self):
        self.finds(
            {"stator/codec/json.cc": '\n#include "stator/net/server.h"\n'},
            "stator/codec/json.cc:2:",
            "'codec' must not include 'net', a storey above",
        )

    def test_include_sideways_undeclared(self):
        self.finds({"stator/codec/json.h": '#include "stator/text/x.h"\n', **self.text_room()}, "does not declare 'text'")

    def test_include_downward_undeclared(self):
        self.finds({"stator/engine/engine.h": '#include "stator/codec/json.h"\n'}, "'engine' does not declare 'codec'")

    def test_inner_room_is_not_its_outer_room(self):
        self.finds(
            {"stator/engine/echo/echo.h": "", "stator/engine/engine.h": '#include "stator/engine/echo/echo.h"\n'},
            "'engine' does not declare 'engine/echo'",
        )

    def test_test_dependency_outside_a_test(self):
        self.finds({"stator/net/server.cc": '#include "stator/codec/json.h"\n'}, "'net' does not declare 'codec'")

    def test_test_dependency_in_a_header_for_tests(self):
        fixture = {"stator/net/fixture.h": '#include "stator/codec/json.h"\n'}
        used = {**fixture, "stator/net/server_test.cc": '#include "stator/net/fixture.h"\n'}
        self.assertEqual(self.findings(used), [])
        self.finds(fixture, "stator/net/fixture.h:1: 'net' does not declare 'codec'")
        leaked = {**used, "stator/net/server.cc": '#include "stator/net/fixture.h"\n'}
        self.finds(leaked, "stator/net/fixture.h:1: 'net' does not declare 'codec'")

    def test_declared_dependency_a_storey_up(self):
        self.finds(
            {"stator/codec/CMakeLists.txt": "stator_room(NAME codec STOREY ground DEPS base net)"},
            "DEPS names 'net', which is a storey above",
        )

    def test_declared_dependency_on_nothing(self):
        self.finds(
            {"stator/codec/CMakeLists.txt": "stator_room(NAME codec STOREY ground DEPS base nowhere)"},
            "'nowhere', which is no room",
        )

    def test_circle(self):
        self.finds(
            {**self.text_room(), "stator/codec/CMakeLists.txt": "stator_room(NAME codec STOREY ground DEPS base text)"},
            "circle of rooms: codec -> text -> codec",
        )

    def test_missing_readme(self):
        self.finds({"stator/codec/README.md": None}, "stator/codec:1: the room has no README.md")

    def test_name_that_is_not_the_folder(self):
        found = self.findings({"stator/codec/CMakeLists.txt": "stator_room(NAME json STOREY ground DEPS base)"})
        self.assertTrue(any("calls itself 'json'" in f for f in found), found)

    def test_clock_elsewhere(self):
        self.finds(
            {"stator/codec/json.cc": "\n\nauto t = std::chrono::system_clock::now();\n"},
            "stator/codec/json.cc:3: reads a clock",
        )

    def test_third_party_in_a_header_that_crosses_a_border(self):
        self.finds(
            {"stator/net/server.h": "#include <boost/beast.hpp>\n"},
            "stator/engine/echo/echo.cc:2:",
            "stator/net/server.h -> boost/beast.hpp",
        )

    def test_third_party_through_another_header(self):
        self.finds(
            {"stator/net/server.h": '#include "stator/net/connection.h"\n'},
            "stator/net/server.h -> stator/net/connection.h -> stator/runtime/asio.h -> boost/asio.hpp",
        )

    def test_third_party_in_a_private_header_is_allowed(self):
        self.assertEqual(self.findings({"stator/net/parser.h": "#include <boost/beast.hpp>\n"}), [])

    def test_include_that_does_not_start_at_the_root(self):
        self.finds({"stator/net/server.cc": '#include "server.h"\n'}, "start at the source root")

    def test_include_of_a_header_that_is_not_there(self):
        self.finds({"stator/net/server.cc": '#include "stator/net/gone.h"\n'}, "no such header")

    @staticmethod
    def text_room():
        return {
            "stator/text/CMakeLists.txt": "stator_room(NAME text STOREY ground DEPS codec)",
            "stator/text/README.md": "text",
            "stator/text/x.h": "",
        }


if __name__ == "__main__":
    unittest.main()
