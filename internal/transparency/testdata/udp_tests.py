"""usage: udp_tests.py [--any-address] PATTERN

CPython's own tests of sockets, those of UDP whose names match, with results as Go
prints them. Most tests of recvmsg() ask that the server sees its client at the
client's own address. Behind a proxy it can not be: --any-address takes that out.
"""

import re
import sys
import unittest

from test import test_socket

arguments = sys.argv[1:]
if arguments[0] == "--any-address":
    del arguments[0]
    for cls in test_socket.SendrecvmsgBase, test_socket.SendrecvmsgUDP6TestBase:
        cls.checkRecvmsgAddress = lambda self, got, want: self.assertTrue(got)
pattern = re.compile(arguments[0])


class Result(unittest.TestResult):
    def say(self, result, test):
        print("--- %s: %s (0.00s)" % (result, name(test)), flush=True)

    def addSuccess(self, test):
        self.say("PASS", test)

    def addSkip(self, test, reason):
        self.say("SKIP", test)

    def addFailure(self, test, err):
        print(self._exc_info_to_string(err, test))
        self.say("FAIL", test)

    addError = addFailure


def name(test):
    return type(test).__name__ + "." + test._testMethodName


loader = unittest.defaultTestLoader
for cls in vars(test_socket).values():
    if isinstance(cls, type) and issubclass(cls, unittest.TestCase) and "UDP" in cls.__name__ and "UDPLITE" not in cls.__name__:
        for test in loader.loadTestsFromTestCase(cls):
            if pattern.search(name(test)):
                test(Result())
