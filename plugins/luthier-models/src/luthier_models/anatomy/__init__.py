"""What a model consists of and what it costs: read off its configuration and the headers of its weights.

No weight is read and no model library imported. `tensors` reads the headers, `parts` says what each tensor is for,
`costs` reckons memory, operations and times, `machine` measures what this machine does in a second.
"""
