"""From samples to steps: the loop, its observers, and the schedules that say what each step does.

In: an engine and streams of samples. Out: trained weights; observers see each step and each batch of settled steps.
"""
