"""What is wrong with a folder of images, before anything is learnt from it.

Enter by `check.check`; `manifest` is the list it leaves. It changes no file. What training itself leaves out is
decided in `data/folder`.
"""
