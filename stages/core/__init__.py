"""What several stages share: params, layout, errors, files, statistics."""
