"""Images and the crops cut from them: sources on disk, views that remember where they were cut, whole images."""
