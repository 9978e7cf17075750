"""Reading and writing ``.tflite``: the only place that knows flatbuffers."""
