"""The command `lucid`: one module a command, nothing decided here that a filespace could decide.

main.py finds the command and turns errors into sentences and exit codes; terminal.py is what people
and programs read; secrets.py asks for passphrases; filespaces.py is the door to lucid.filespace.
"""
