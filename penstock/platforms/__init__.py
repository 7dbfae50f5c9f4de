"""Where replicas run and how they are kept running: today, child processes of this machine."""
