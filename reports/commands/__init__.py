"""The commands of `revdeq`, one small file each."""
