"""An interpreter in the text: code that was run, and its real output, as training data and while generating.

Rooms, in the order in which they build on each other (none but the last imports torch):

    sandbox       runs a program that nobody trusts: no network, no host files, limits on everything
    languages     Python, Coq, SMT (z3), Lean: start, run a piece in an environment, stop
    transcripts   finds code in documents, runs it, writes documents with tags
    live          generation with an interpreter, and Toolformer's filter
"""
