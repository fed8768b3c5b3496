"""How large anything from outside may be: one place for all readers, far above what honest use needs."""

from __future__ import annotations

MB = 1_000_000

TABLE_BYTES = 200 * MB
"""A latency table: 200,000 rows take 20 MB."""
LOG_BYTES = 20 * MB
"""A log or block table to import: the largest known takes 1 MB."""
CONFIG_BYTES = 1 * MB
"""A TOML file: a device profile, a run's configuration, a cost model."""
JSON_BYTES = 16 * MB
"""One JSON text, or one line of JSON."""
JSON_DEPTH = 32
"""Objects and lists in one another."""
LINES_BYTES = 100 * MB
"""A file of JSON lines that a run has written: 100,000 episodes take some 40 MB, and six times that once read."""
MODEL_BYTES = 1_000 * MB
"""A `.tflite` file: FlatBuffers end at 2 GiB, and LiteRT holds the file and its packed weights."""
CHECKPOINT_BYTES = 8_000 * MB
"""A file of weights; each entry is bounded by what the file really stores."""
PICKLE_BYTES = 64 * MB
"""What a checkpoint says of its tensors, beside their bytes."""
INPUT_VALUES = 16 * MB
"""Numbers of one image that a network is given: its layers' outputs are many times as many."""
IDX_BYTES = 100 * MB
"""A file of a data set in IDX, unpacked: Fashion-MNIST's largest has 47 MB."""
PROGRAM_BYTES = 100 * MB
"""A program for a phone, or the wheel that holds one."""
PHOTO_BYTES = 200 * MB
PHOTO_PIXELS = 40 * MB
"""Pixels of a photo as decoded: JPEG is decoded at a reduced size first."""
COUNT = 1_000_000
"""Any number of classes, runs or rounds."""
LAYER_SIZE = 2**24
"""Any size of a layer: its channels, its height and width, its kernel."""
FIGURE = 1e15
"""Any figure of a log or table, and any count in it; as microseconds, 31 years."""
SECONDS = 1e6
"""Any time to wait."""
PARAMETERS = 2_000 * MB
"""Weights of a network that is built, in numbers."""
PACKET_BYTES = 2 * MB
"""One packet of adb's protocol: we offer the phone 1 MiB."""
ANSWER_BYTES = 16 * MB
"""All that a command prints on a phone, or one file of text from there: 10,000 checksums take 1.4 MB."""
SLOWEST_PUSH_BYTES_S = 100_000
"""How slowly a phone may take files, beside the time to answer in: bad radio still carries 500,000 a second."""
SLOWEST_ANSWER_BYTES_S = 1 * MB
"""The same for what it sends, which is short: what takes longer in all is a trickle, and no answer."""
WORKER_MEMORY_BYTES = 8_000 * MB
"""Memory of a process that runs somebody's `.tflite`: `MODEL_BYTES` four times over, and large activations."""
ACTIVATION_BYTES = 1_000 * MB
"""What of it one file may take beside its weights: a frame of 1920x1080 at 32 channels is 265 MB."""
WEIGHT_COPIES = 4
"""And how often its own bytes: read, copied, packed for a processor, and room to spare."""
WORKER_FILE_BYTES = 16 * MB
"""Any file that such a process writes, its log of errors included."""
WORKER_ANSWER_BYTES = 16 * MB
"""One line of its answers: eight figures for each of 200,000 runs."""
