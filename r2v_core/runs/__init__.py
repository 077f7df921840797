"""What a run is on disk, whoever makes it: manifest, directories, inputs, fingerprint, records, processes. No stage."""
