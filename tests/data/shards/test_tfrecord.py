import tensorflow as tf

from bert_pretrain.data.shards import tfrecord


def test_a_frame_is_what_tensorflow_writes(tmp_path):
    path = str(tmp_path / "shard")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"some bytes")
        writer.write(b"")
    with open(path, "rb") as file:
        assert file.read() == tfrecord.frame_record(b"some bytes") + tfrecord.frame_record(b"")
