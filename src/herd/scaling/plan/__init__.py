"""The planner: how a model is laid out over thousands of GPUs, how long that takes, what it costs and what breaks.

    hardware, network       what there is, each number with its source
    efficiency              the few constants of the simulation, the same for every row
    job                     what is asked for, and one way to run it
    products                how long a matrix product takes
    layer, memory           what a layer takes, in seconds by part and in bytes by part
    step                    one step, its pipeline played event by event
    search                  the best of all ways
    failures, outlook       interruptions by Monte-Carlo; days, energy, cost, checkpoints
    serving                 which node holds which model, and how fast it answers
    published               rows that others measured, to check the simulation with

No torch. The arithmetic is told in docs/planning.md.
"""
