"""Logs runs to MLflow, TensorBoard and Weights & Biases, during training or afterwards.

* The run folder is the source. A tracker is synchronised to it, again and again: following a run, resuming one,
  switching tracking on late, and sending a finished run all work this way.
* The trackers' libraries run in one separate process (`worker.py`). There they cannot slow an epoch, use random numbers
  of the training, print over the progress bars, or block the exit; and if the training process is killed, the worker
  is still there to report it.
* The training process (`client.py`) only sends "up to this epoch", in writes that cannot block. There is no queue: a
  slow tracker gets the latest update when it is ready, and reads what it missed from the folder.
* What has been sent is stored in `tracking.json` (`state.py`), so no epoch is sent twice.
"""
