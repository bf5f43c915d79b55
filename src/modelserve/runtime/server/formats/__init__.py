"""Bodies ⇄ tensors, one file for each way in which clients write them."""
