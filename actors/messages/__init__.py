"""Every message between actors: the only thing that actors share. One module for each direction in which they travel.

Facts are about objects, in the past tense; commands are imperative; ticks say that a time has come. All are frozen
values. Repeating any of them is harmless unless its docstring says otherwise.

May import: `actors.framework.messages`, and the frozen values of `k8s` and `config`.
"""
