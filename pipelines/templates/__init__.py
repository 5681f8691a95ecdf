"""The files of a new project; `pipelines/new_project.py` fills them in."""
