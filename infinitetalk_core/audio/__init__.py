"""Speech: sound -> wav2vec 2.0 features at 25 fps -> windows."""
