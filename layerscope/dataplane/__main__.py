"""`python -m layerscope.dataplane` runs the data plane as a process."""

from layerscope.dataplane.application import main

if __name__ == "__main__":
    main()
