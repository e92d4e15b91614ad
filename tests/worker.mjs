// Before the test files of one process: each process has a cache of downloaded models of its own, so that none finds what another has put there.
if (process.env.MOCHA_WORKER_ID) process.env.HF_HUB_CACHE += `-${process.env.MOCHA_WORKER_ID}`;
