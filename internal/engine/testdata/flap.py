"""usage: flap.py PORT

A proxy that listens for some milliseconds, accepts what comes, and is gone for
as long, over and over. It forwards nothing.
"""

import select
import socket
import sys
import time

print("ready", flush=True)
while True:
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        end = time.monotonic() + 0.01
        while (left := end - time.monotonic()) > 0:
            if select.select([listener], [], [], left)[0]:
                listener.accept()[0].close()
    time.sleep(0.01)
