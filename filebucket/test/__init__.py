"""The tests of file-bucket; run them with ``trial filebucket``."""

import signal

# In the background of a script, or with nohup, these signals are ignored, and child
# processes inherit that. A signal with a handler gets its default in them instead.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
