"""`luthier serve`: models behind OpenAI's API.

The plugin has a command and no components. Two kinds of processes: the web server (`app`, `routes`, `guard`), which
never imports a runtime, and for each model one that has it in memory (`model_process`, with `scheduler`), which the
server starts, talks to and starts again where it dies (`processes`, `serving`).
"""
