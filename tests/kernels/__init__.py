"""Tests on other Linux kernels than this machine's: Debian's, each in a virtual machine of its own."""
