def survived(*a):
    pass
