"""`luthier optimize`: which export, quantization and pruning make a model smallest or fastest within a loss.

The plugin has a command and no components: it tries what other plugins give. `material` is the model and the held-out
text as the steps of a recipe, `routes` what can be done with it, `trying` runs each route as a recipe, `timing` takes
the times of what came out, `choosing` picks one, and `outcome`, `table` and `page` tell.
"""
