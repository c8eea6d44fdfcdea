"""What a process gives up before it reads a file of a stranger's: files, network, system calls. Linux only."""
