"""What every other package needs: the settings and their loader, logging, back-off, and wording.

`domain` has the words that all parts share; `input` reads untrusted text. This is the lowest layer: it imports no other
package of ours.
"""
