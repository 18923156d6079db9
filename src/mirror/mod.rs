//! A local bare repository: trees, blobs and ignore rules of the site's code.
