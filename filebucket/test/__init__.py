"""The tests of file-bucket; run them with ``trial filebucket``."""

import signal

# What a script starts in the background, or with nohup, finds these ignored, and so
# would all its children. What is caught they do not inherit: they have the default.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
