"""What loopback clouds share: the real runtime started by a container contract, faults, an HTTP server on 127.0.0.1.

    containers   one process of the runtime, started as a cloud starts a container
    fleet        several of them behind one door: resize, replace, forward, kill one
    faults       what is to go wrong, by the name of an operation
    loopback     an HTTP server in a thread
    launch       the first thing in a container's process: it ends with its parent, and sees its model at its place
    load         callers that keep asking
    registry     a registry of container images

Needs the extra `modelserve[rehearsal]`.
"""
