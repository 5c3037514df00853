"""Who asks the rows of a job besides this process: processes of a crew, of other hosts, of a Dask cluster."""
