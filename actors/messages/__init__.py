"""The messages between actors, which share nothing else. Each module has the messages about one subject.

Facts describe objects and are named in the past tense; commands are imperative; ticks say that a time has come. All
messages are frozen values. Sending one twice does no harm, unless its docstring says otherwise.

May import: `actors.framework.messages`, and the frozen values of `k8s` and `config`.
"""
