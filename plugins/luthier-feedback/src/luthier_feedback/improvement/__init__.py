"""`luthier improve`: a recipe's model is compared with the champion, and promoted if it is better.

`measures` reads off a plan what can be compared, `fresh` counts the feedback that is new, `comparing` holds challenger
against champion, `outcome` is what is decided and why, `round` does one round, `page` and `terminal` tell of it.
`watching` does rounds on a schedule, and has the champion measured again by `evaluating`: `luthier watch`.
"""
