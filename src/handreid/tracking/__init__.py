"""Runs told to MLflow, TensorBoard and Weights & Biases, while they go on or afterwards.

* The run folder is the truth. A tracker is brought to what the folder holds, over and over: this is what following a
  run, going on with one, switching tracking on late, and sending a run of yesterday have in common.
* Whatever touches a tracker's library does so in one process of its own (`sending.py`). It cannot slow an epoch, draw
  from a random generator, print over the bars, or hang an exit; and when the run's process is killed, it is still
  there to say so.
* The run's process (`sender.py`) only says "up to this epoch", in writes that cannot block. Nothing queues up: a
  tracker that is slow finds the newest word when it comes to it, and reads what it missed from the folder.
* What has been sent is in `tracking.json` (`memory.py`), so no epoch is sent twice.
"""
