"""What sfdkit measures: image distances, the mean over videos, and who is compared with whom."""
